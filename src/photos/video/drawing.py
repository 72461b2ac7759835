"""A video's frame with its hands drawn in, and what is known of them in a corner."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src.photos.camera import Camera
from src.photos.perspective import draw_mesh
from src.photos.result import Result
from utils.drawing.overlay import IDENTITY_COLOUR

_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
#: Opacity of a hand that is seen, and of one that only its neighbours in time tell.
SEEN, CARRIED = 0.8, 0.35


def hand_words(hand: Result, camera: Camera) -> list[str]:
    """What is written into a frame about its hand."""
    guessed = " (camera guessed)" if camera.is_guess else ""
    place = f"{hand.side} hand, {hand.distance_m:.2f} m away{guessed}"
    first = [hand.describe_length()]
    if (known := hand.notes.get("identity")) is not None:  # that grows while the video is watched
        low, high = known["interval_95_mm"]
        written = "" if known["file"] is None else f", in {known['file']}"
        first.append(f"identity: {known['views']} views, {low:.0f} to {high:.0f} mm (95%){written}")
    if not hand.notes.get("observed", True):
        return [*first, f"{place}, not seen: carried by the frames about it"]
    return [*first, f"{place}, {hand.reprojection_px:.1f} px off the keypoints"]


def all_words(hands: Sequence[Result], camera: Camera) -> list[str]:
    """Of several hands: a length that they share is said once."""
    lines: list[str] = []
    for hand in hands:
        lines += [line for line in hand_words(hand, camera) if line not in lines]
    return lines or ["no hand"]


def annotate(frame: np.ndarray, hands: Sequence[Result], lines: list[str]) -> np.ndarray:
    """The frame (H,W,3) uint8 RGB with the meshes drawn in, the nearest last, and ``lines`` in a corner."""
    for hand in sorted(hands, key=lambda one: -one.distance_m):
        opacity = SEEN if hand.notes.get("observed", True) else CARRIED
        frame = draw_mesh(frame, hand, IDENTITY_COLOUR, opacity)
    return write_lines(frame, lines)


def write_lines(frame: np.ndarray, lines: list[str]) -> np.ndarray:
    """Text on a dark translucent panel at the lower left, sized by the frame, the first line bold."""
    size = max(11, round(min(frame.shape[:2]) / 30))
    bold, plain = _font("DejaVuSans-Bold.ttf", size), _font("DejaVuSans.ttf", size)
    fonts = [bold] + [plain] * (len(lines) - 1)
    step, margin = round(1.4 * size), round(0.7 * size)
    wide = max(round(font.getlength(line)) for font, line in zip(fonts, lines, strict=True))
    height = frame.shape[0]
    top = height - margin - step * len(lines) - margin
    picture = Image.fromarray(frame)
    pen = ImageDraw.Draw(picture, "RGBA")
    panel = (margin // 2, top - margin // 2, wide + 5 * margin // 2, height - margin // 2)
    pen.rounded_rectangle(panel, radius=margin, fill=(15, 18, 22, 175))
    for number, (font, line) in enumerate(zip(fonts, lines, strict=True)):
        ink = (255, 255, 255, 255) if number == 0 else (220, 224, 228, 255)
        pen.text((3 * margin // 2, top + margin // 2 + number * step), line, font=font, fill=ink)
    return np.asarray(picture)


@functools.lru_cache(maxsize=8)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_FONTS / name), size)
