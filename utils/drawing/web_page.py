"""A page that shows each image beside a hand that can be turned. One file: it loads nothing from anywhere."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from utils.drawing.overlay import FINGER_COLOURS
from utils.files import atomic_path

_ASSETS = Path(__file__).parent / "web"
_AXIS = (140.0, 220.0)  # mm, of the hand-length scale; adults lie between 155 and 215


@dataclass
class PageHand:
    """One image with its hand.

    Attributes:
        name: heading; subtitle: beside it.
        photo: (H,W,3) uint8 RGB, shown first; views: (label, (S,S,3) picture), at most three, to switch between.
        vertices: (V,3) any frame with y down; faces: (F,3); colour: RGB of the mesh.
        length_mm, interval_mm, length_source: of the hand; None where unknown, and the source says why.
        facts: (label, text). files: (label, path relative to the page).
    """

    name: str
    subtitle: str
    photo: np.ndarray
    views: Sequence[tuple[str, np.ndarray]]
    vertices: np.ndarray
    faces: np.ndarray
    colour: tuple[int, int, int]
    length_mm: float | None = None
    interval_mm: tuple[float, float] | None = None
    length_source: str = ""
    facts: Sequence[tuple[str, str]] = field(default_factory=tuple)
    files: Sequence[tuple[str, str]] = field(default_factory=tuple)


def page_section(hand: PageHand, number: int, face_lists: list[np.ndarray]) -> str:
    """HTML of one hand. ``face_lists`` collects the faces that the page must carry, each once.

    Text is escaped; pictures become JPEGs inside the page, so the arrays need not be kept.
    """
    which = next((i for i, known in enumerate(face_lists) if np.array_equal(known, hand.faces)), len(face_lists))
    if which == len(face_lists):
        face_lists.append(np.asarray(hand.faces))
    tabs = "".join(
        f'<input type="radio" name="view{number}" id="view{number}-{i}"{" checked" if i == 0 else ""}>'
        for i in range(len(hand.views))
    )
    pictures = "".join(_picture(picture, f"{label} of {hand.name}") for label, picture in hand.views)
    labels = "".join(f'<label for="view{number}-{i}">{_text(label)}</label>' for i, (label, _) in enumerate(hand.views))
    facts = "".join(f"<dt>{_text(label)}</dt><dd>{_text(value)}</dd>" for label, value in hand.facts)
    files = "".join(f'<a href="{html.escape(path, quote=True)}">{_text(label)}</a>' for label, path in hand.files)
    return f"""
<article class="hand">
<header><h2>{_text(hand.name)}</h2><p>{_text(hand.subtitle)}</p></header>
<div class="panels">
<figure><div class="well">{_picture(hand.photo, hand.name)}</div>
<figcaption>image, and where the hand is</figcaption></figure>
<figure class="tabs">{tabs}<div class="well">{pictures}</div><figcaption>{labels}</figcaption></figure>
<figure><div class="well">{_canvas(hand, which)}</div>
<figcaption>drag to turn, double-click to reset</figcaption></figure>
</div>
<div class="facts">{_length(hand)}<dl>{facts}</dl></div>
<p class="files">{files}</p>
</article>"""


def write_page(
    path: str | os.PathLike,
    title: str,
    lead: str,
    sections: Iterable[str],
    face_lists: Sequence[np.ndarray],
    failures: Sequence[tuple[str, str]] = (),
    footer: str = "",
) -> None:
    """Write the page, atomically.

    Args:
        sections, face_lists: of `page_section`.
        failures: (image, why it shows no hand).
    """
    missing = ""
    if failures:
        rows = "".join(f"<li><b>{_text(name)}</b>: {_text(reason)}</li>" for name, reason in failures)
        missing = f'<article class="hand without"><h2>Without a usable hand</h2><ul>{rows}</ul></article>'
    legend = "".join(
        f'<li><i style="background:rgb{colour}"></i>{finger}</li>' for finger, colour in FINGER_COLOURS.items()
    )
    faces = json.dumps([_base64(np.asarray(faces), np.uint16) for faces in face_lists])
    head = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{_text(title)}</title>
<style>
{(_ASSETS / "page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<div class="top"><h1>{_text(title)}</h1><p class="lead">{_text(lead)}</p><ul class="legend">{legend}</ul></div>
<main>"""
    tail = f"""{missing}<footer>{_text(footer)}</footer></main>
<script type="application/json" id="faces">{faces}</script>
<script>
{(_ASSETS / "viewer.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        handle.writelines(chain([head], sections, [tail]))


def _text(value: str) -> str:
    """Escaped; of names that are no UTF-8, what can be written."""
    return html.escape(value.encode("utf-8", "replace").decode(), quote=False)


def _base64(array: np.ndarray, dtype: type) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()).decode()


def _picture(image: np.ndarray, alternative: str) -> str:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 86])
    if not done:
        raise ValueError(f"a picture of shape {image.shape} cannot be stored as JPEG")
    text = base64.b64encode(data.tobytes()).decode()
    return f'<img alt="{html.escape(alternative, quote=True)}" src="data:image/jpeg;base64,{text}">'


def _canvas(hand: PageHand, which: int) -> str:
    """Vertices about their middle, in a unit ball, 16 bits each: exact to some micrometres."""
    centred = hand.vertices - (hand.vertices.min(axis=0) + hand.vertices.max(axis=0)) / 2
    unit = centred / max(float(np.linalg.norm(centred, axis=1).max()), 1e-12)
    data = _base64(np.round(unit * 32767), np.int16)
    colour = ",".join(str(int(value)) for value in hand.colour)
    label = html.escape(f"mesh of {hand.name}; arrow keys turn it", quote=True)
    return (
        f'<canvas tabindex="0" role="img" aria-label="{label}" '
        f'data-vertices="{data}" data-faces="{which}" data-colour="{colour}"></canvas>'
    )


def _length(hand: PageHand) -> str:
    if hand.length_mm is None:
        words = hand.length_source or "hand length unknown"
        return f'<div class="length"><span class="interval">{_text(words)}</span></div>'
    interval = "interval not known"
    if hand.interval_mm is not None:
        interval = f"95% interval {hand.interval_mm[0]:.0f} to {hand.interval_mm[1]:.0f} mm"
    return (
        f'<div class="length"><span class="number">{hand.length_mm:.0f} mm</span> '
        f'<span class="interval">hand length</span><small>{interval}</small>{_scale(hand)}'
        f"<small>from {_text(hand.length_source)}</small></div>"
    )


def _scale(hand: PageHand) -> str:
    """The length and its interval on a scale in millimetres."""
    ends = (hand.length_mm, *(hand.interval_mm or ()))
    low, high = min(_AXIS[0], *ends) // 20 * 20, -(-max(_AXIS[1], *ends) // 20) * 20

    def x(value: float) -> float:
        return round(14 + 272 * (value - low) / (high - low), 1)

    band = ""
    if hand.interval_mm is not None:
        left, right = x(hand.interval_mm[0]), x(hand.interval_mm[1])
        band = f'<rect class="band" x="{left}" y="4" width="{right - left:.1f}" height="14" rx="7"/>'
    ticks = "".join(f'<text x="{x(v)}" y="32">{v:.0f}</text>' for v in np.arange(low, high + 1, 20))
    return (
        f'<svg viewBox="0 0 300 36" aria-hidden="true"><line class="axis" x1="14" y1="11" x2="286" y2="11"/>{band}'
        f'<circle class="mark" cx="{x(hand.length_mm)}" cy="11" r="5"/>{ticks}</svg>'
    )
