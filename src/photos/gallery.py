"""What the demo leaves of each picture: plot, meshes, a section of the page, an entry of predictions.json."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from src.photos.boxes import Refused
from src.photos.perspective import close_up
from src.photos.result import CONVENTIONS, SCHEMA, Result, corners
from utils.camera import crop_affine, square_box, transform_points
from utils.drawing import overlay
from utils.drawing.attention import attention_grid
from utils.drawing.figures import CROP_PIXELS, HandView, demo_figure
from utils.drawing.web_page import PageHand, page_section, write_page
from utils.files import Spool, atomic_path

logger = logging.getLogger(__name__)

PAGE, PREDICTIONS = "index.html", "predictions.json"
#: Folder of the files of a picture's second and further hands.
FURTHER = "further_hands"
COLOUR = overlay.IDENTITY_COLOUR
#: Side of the close-up over the hand's box, and pixels of the pictures in the page.
CLOSE_UP, PHOTO_PIXELS, VIEW_PIXELS = 1.5, 560, 440
#: Page and predictions are written anew after each picture, but in a large folder not for more of the time than this.
_SHARE_OF_TIME = 0.1


@dataclass
class Gallery(contextlib.AbstractContextManager):
    """Collects hands and failures; page and predictions.json are kept up to date as they come, their text on disk.

    Use as a context: whatever ends it, what was found until then is written.

    Attributes:
        output: folder, which exists.
        title, lead: of the page.
        about: facts about network and hand model, for predictions.json.
        plots: write `<name>_plot.jpg` too (a second or so for each picture).
    """

    output: Path
    title: str
    lead: str
    about: dict[str, Any]
    plots: bool = True
    _sections: Spool = field(default_factory=Spool)
    _faces: list[np.ndarray] = field(default_factory=list)
    _entries: Spool = field(default_factory=Spool)
    _failures: list[tuple[str, str]] = field(default_factory=list)
    _with_hand: int = 0
    _without: int = 0
    _next_writing: float = 0.0

    def __exit__(self, *_: object) -> None:
        self.write()

    def add(self, name: str, file: str, image: np.ndarray, *hands: Result, refused: Sequence[Refused] = ()) -> None:
        """Write a picture's hands and remember them.

        Args:
            name: of the files; file: the picture's name; image: (H,W,3) uint8 RGB that the hands belong to.
            hands: surest first, at least one; refused: hands that were found as well.
        """
        self._clear(name)
        records = []
        for number, hand in enumerate(hands, 1):
            # Further hands have a folder of their own: no name of another picture's files can be theirs.
            stem = name if number == 1 else f"{FURTHER}/{name}_{number}"
            if number > 1:
                (self.output / FURTHER).mkdir(exist_ok=True)
            files = self._write_files(stem, file, image, hand)
            heading = file if len(hands) == 1 else f"{file}, hand {number} of {len(hands)}"
            self._sections.add(
                page_section(_page_hand(heading, image, hand, files), self._sections.pieces, self._faces)
            )
            records.append({"status": "ok"} | hand.record() | {"files": files})
        picture = {"name": name, "file": file, "width": image.shape[1], "height": image.shape[0]}
        others = records[1:] + [_refusal(one) for one in refused]
        for one in refused:
            self._note(file, f"its {_where(one)}: {one.reason}")
        self._with_hand += 1
        self._remember(picture | records[0] | {"other_hands": others})

    def _clear(self, name: str) -> None:
        """Remove what an earlier run left of a picture of this name: it would stand beside this run's verdict."""
        stems = itertools.chain([name], (f"{FURTHER}/{name}_{number}" for number in itertools.count(2)))
        for stem in stems:
            old = [self.output / f"{stem}{ending}" for ending in ("_mesh.ply", "_mesh.glb", "_plot.jpg")]
            if stem != name and not any(path.is_file() for path in old):
                return
            for path in old:
                path.unlink(missing_ok=True)

    def _write_files(self, stem: str, file: str, image: np.ndarray, hand: Result) -> dict[str, str]:
        """Meshes and plot of a hand, by kind."""
        files = {"mesh_ply": f"{stem}_mesh.ply", "mesh_glb": f"{stem}_mesh.glb"}
        for path in files.values():
            hand.save(self.output / path, COLOUR)
        if self.plots:
            files = {"plot": f"{stem}_plot.jpg", **files}
            write_plot(self.output / files["plot"], image, hand, f"{file}: {hand.side} hand, {hand.describe_length()}")
        return files

    def fail(
        self, name: str, file: str, reason: str, status: str = "no usable hand", refused: Sequence[Refused] = ()
    ) -> None:
        """Remember a picture without a usable hand; refused: the hands that were found in it."""
        self._clear(name)
        self._note(file, reason)
        for one in refused[1:]:
            self._note(file, f"its {_where(one)}: {one.reason}")
        entry = {"name": name, "file": file, "status": status, "reason": reason}
        self._without += 1
        self._remember(entry | {"other_hands": [_refusal(one) for one in refused[1:]]})

    def note(self, name: str, file: str, hand: Result) -> None:
        """Remember a hand whose picture is not there: an entry of predictions.json, no section of the page."""
        picture = {"name": name, "file": file, "status": "ok"}
        self._remember(picture | hand.record())

    def _remember(self, entry: dict[str, Any]) -> None:
        """Add the picture's entry, its last part, and write everything if that is due."""
        self._entries.add((",\n    " if self._entries.pieces else "") + json.dumps(entry, allow_nan=False))
        started = time.monotonic()
        if started >= self._next_writing:
            self.write()
            ended = time.monotonic()
            self._next_writing = ended + (ended - started) * (1 / _SHARE_OF_TIME - 1)

    def _note(self, file: str, reason: str) -> None:
        logger.warning("%s", reason if reason.startswith(file) else f"{file}: {reason}")
        self._failures.append((file, reason))

    @property
    def counts(self) -> tuple[int, int]:
        """Pictures with a hand, and without."""
        return self._with_hand, self._without

    def write(self) -> None:
        """Write predictions.json, a line for each picture, and index.html; each is whole at every moment."""
        command = command_line()
        head = json.dumps({"schema": SCHEMA, "command": command, **self.about, **CONVENTIONS}, indent=2)
        with atomic_path(self.output / PREDICTIONS) as path, open(path, "w", encoding="utf-8") as handle:
            handle.write(head.removesuffix("\n}") + ',\n  "images": [\n    ')
            handle.writelines(self._entries)
            handle.write("\n  ]\n}\n")
        write_page(
            self.output / PAGE, self.title, self.lead, self._sections, self._faces, self._failures, f"Made by {command}"
        )


def _refusal(one: Refused) -> dict[str, Any]:
    """A refused hand as plain JSON."""
    where = {"left_top_right_bottom": corners(one.region.box), "source": one.region.source}
    side = {"side": "left" if one.region.is_left else "right", "source": one.region.side_source}
    return {"status": "no usable hand", "reason": one.reason, "hand": side, "box": where}


def _where(one: Refused) -> str:
    x, y, _ = one.region.box
    return f"{'left' if one.region.is_left else 'right'} hand about ({x:.0f}, {y:.0f})"


def command_line() -> str:
    """The command that is running, as a shell would take it."""
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])


def write_plot(path: Path, image: np.ndarray, hand: Result, title: str) -> None:
    """`utils.drawing.figures.demo_figure`: image, silhouette, 2D pose, projected mesh, mesh and pose in space."""
    image, hand = close_up(image, hand)
    box = close_up_box(hand)
    demo_figure(
        path,
        image,
        hand.K,
        hand.faces,
        [HandView("over the image", hand.vertices, hand.joints, None, COLOUR)],
        box=box,
        keypoints_2d=hand.keypoints,
        keypoint_confidence=hand.confidence,
        close_silhouette=silhouette(hand, box, CROP_PIXELS),
        title=title,
    )


def close_up_box(hand: Result) -> np.ndarray:
    """Square (3,) px around box and keypoints, with a margin."""
    centre, half = hand.box[:2], hand.box[2] / 2
    points = np.concatenate([[centre - half, centre + half], hand.keypoints[hand.confidence > 0.1]])
    limit = np.stack([centre - 1.5 * hand.box[2], centre + 1.5 * hand.box[2]])
    return square_box(np.clip(points, *limit), CLOSE_UP if len(points) > 2 else 1.2 * CLOSE_UP)


def silhouette(hand: Result, box: np.ndarray, size: int) -> np.ndarray:
    """(size,size) bool of a close-up: as the network saw it, else the mesh's."""
    affine = crop_affine(box, size)
    if hand.mask is None:
        _, K, _ = overlay.crop_view(np.zeros((2, 2, 3), np.uint8), hand.K, box, size)
        return overlay.mesh_silhouette(hand.vertices, hand.faces, K, size, size)
    to_crop = affine @ np.vstack([hand.mask_to_image, [0, 0, 1]])
    return cv2.warpAffine(np.ascontiguousarray(hand.mask, np.float32), to_crop, (size, size)) > 0.5


def _page_hand(file: str, image: np.ndarray, hand: Result, files: dict[str, str]) -> PageHand:
    sources, (picture, close) = hand.sources, close_up(image, hand)
    box = close_up_box(close)
    crop, K, affine = overlay.crop_view(picture, close.K, box, VIEW_PIXELS)
    mesh = overlay.overlay_mesh(crop, close.vertices, close.faces, K, COLOUR)
    pose = overlay.draw_skeleton(crop, transform_points(close.keypoints, affine), close.confidence, None, 0.1)
    if close.attention is None:
        mask = np.repeat(silhouette(close, box, VIEW_PIXELS)[..., None].astype(np.uint8) * 255, 3, axis=2)
        last = ("silhouette", mask)
    else:
        last = ("attention", attention_grid(crop, close.vertices, close.joints, close.faces, K, close.attention))
    length = hand.length
    labels = {"plot": "plot", "mesh_ply": "mesh (PLY)", "mesh_glb": "mesh (GLB)"}
    left, top, right, bottom = corners(hand.box)
    height, width = image.shape[:2]
    fx, fy, cx, cy = hand.K[0, 0], hand.K[1, 1], hand.K[0, 2], hand.K[1, 2]
    facts = [
        ("hand", f"{hand.side} ({sources.side})"),
        ("camera", f"fx {fx:.0f}, fy {fy:.0f}, cx {cx:.0f}, cy {cy:.0f} px of {width} × {height} ({sources.camera})"),
        ("box", f"{left:.0f}, {top:.0f} to {right:.0f}, {bottom:.0f} px ({sources.box})"),
        ("wrist", "x {:+.3f}, y {:+.3f}, z {:.3f} m".format(*hand.joints[0])),
        ("2D fit", f"{hand.reprojection_px:.1f} px off the keypoints of {sources.keypoints}"),
        ("certainty", hand.describe_certainty()),
    ]
    facts += [("network", hand.notes["network"])] if "network" in hand.notes else []
    return PageHand(
        file,
        f"{hand.side} hand, {hand.distance_m:.2f} m from the camera",
        framed(image, hand.box),
        (("mesh", mesh), ("2D pose", pose), last),
        hand.vertices,
        hand.faces,
        COLOUR,
        length.mm if length is not None and length.is_known else None,
        None if length is None else length.interval_95,
        "" if length is None else length.source if length.is_known else str(length),
        facts,
        [(labels[kind], quote(path)) for kind, path in files.items()],
    )


def framed(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The image at the page's size with the hand's box drawn in."""
    factor = min(1.0, PHOTO_PIXELS / max(image.shape[:2]))
    centre = (box[:2] + 0.5) * factor - 0.5
    return overlay.draw_box(overlay.reduced(image, PHOTO_PIXELS), np.array([*centre, box[2] * factor]))
