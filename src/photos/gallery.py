"""What the demo leaves of each picture: plot, meshes, a section of the page, an entry of predictions.json."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from src.photos.record import CONVENTIONS, SCHEMA, Sources, command_line, corners, hand_record, length_words
from src.photos.result import HandResult
from utils.camera import crop_affine, square_box, transform_points
from utils.drawing import overlay
from utils.drawing.figures import CROP_PIXELS, HandView, demo_figure
from utils.drawing.web_page import PageHand, page_section, write_page
from utils.files import write_json
from utils.mesh_io import write_mesh

logger = logging.getLogger(__name__)

PAGE, PREDICTIONS = "index.html", "predictions.json"
COLOUR = overlay.IDENTITY_COLOUR
#: Side of the close-up over the hand's box, and pixels of the pictures in the page.
CLOSE_UP, PHOTO_PIXELS, VIEW_PIXELS = 1.5, 560, 440


@dataclass
class Gallery:
    """Collects hands and failures, writes each hand's files at once and the page and predictions.json at the end.

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
    _sections: list[str] = field(default_factory=list)
    _faces: list[np.ndarray] = field(default_factory=list)
    _entries: list[dict[str, Any]] = field(default_factory=list)
    _failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, file: str, image: np.ndarray, hand: HandResult, sources: Sources) -> None:
        """Write one hand's files and remember it.

        Args:
            name: of the files; file: the picture's name; image: (H,W,3) uint8 RGB that ``hand`` belongs to.
        """
        files = {"mesh_ply": f"{name}_mesh.ply", "mesh_glb": f"{name}_mesh.glb"}
        for file_name in files.values():
            write_mesh(self.output / file_name, hand.vertices, hand.faces, np.array(COLOUR))
        if self.plots:
            files = {"plot": f"{name}_plot.jpg", **files}
            title = f"{file}: {hand.side} hand, {length_words(hand)}"
            write_plot(self.output / files["plot"], image, hand, title)
        section = _page_hand(file, image, hand, sources, files)
        self._sections.append(page_section(section, len(self._sections), self._faces))
        picture = {"name": name, "file": file, "status": "ok", "width": image.shape[1], "height": image.shape[0]}
        self._entries.append(picture | hand_record(hand, sources) | {"files": files})

    def fail(self, name: str, file: str, reason: str) -> None:
        """Remember a picture without a usable hand."""
        logger.warning("%s", reason if reason.startswith(file) else f"{file}: {reason}")
        self._failures.append((file, reason))
        self._entries.append({"name": name, "file": file, "status": "no usable hand", "reason": reason})

    @property
    def counts(self) -> tuple[int, int]:
        """Pictures with a hand, and without."""
        return len(self._sections), len(self._failures)

    def finish(self) -> None:
        """Write predictions.json and index.html."""
        command = command_line()
        content = {"schema": SCHEMA, "command": command, **self.about, **CONVENTIONS, "images": self._entries}
        write_json(self.output / PREDICTIONS, content)
        write_page(
            self.output / PAGE, self.title, self.lead, self._sections, self._faces, self._failures, f"Made by {command}"
        )


def write_plot(path: Path, image: np.ndarray, hand: HandResult, title: str) -> None:
    """Image, silhouette, 2D pose, projected mesh, mesh and pose in camera space (`utils.drawing.figures.demo_figure`)."""
    box = close_up_box(hand)
    demo_figure(
        path, image, hand.K, hand.faces, [HandView("over the image", hand.vertices, hand.joints, None, COLOUR)],
        box=box, keypoints_2d=hand.keypoints, keypoint_confidence=hand.confidence,
        close_silhouette=silhouette(hand, box, CROP_PIXELS), title=title,
    )


def close_up_box(hand: HandResult) -> np.ndarray:
    """Square (3,) px around box and keypoints, with a margin."""
    centre, half = hand.box[:2], hand.box[2] / 2
    points = np.concatenate([[centre - half, centre + half], hand.keypoints[hand.confidence > 0.1]])
    limit = np.stack([centre - 1.5 * hand.box[2], centre + 1.5 * hand.box[2]])
    return square_box(np.clip(points, *limit), CLOSE_UP if len(points) > 2 else 1.2 * CLOSE_UP)


def silhouette(hand: HandResult, box: np.ndarray, size: int) -> np.ndarray:
    """(size,size) bool of a close-up: as the network saw it, else the mesh's."""
    affine = crop_affine(box, size)
    if hand.mask is None:
        _, K, _ = overlay.crop_view(np.zeros((2, 2, 3), np.uint8), hand.K, box, size)
        return overlay.mesh_silhouette(hand.vertices, hand.faces, K, size, size)
    to_crop = affine @ np.vstack([hand.mask_to_image, [0, 0, 1]])
    return cv2.warpAffine(np.ascontiguousarray(hand.mask, np.float32), to_crop, (size, size)) > 0.5


def _page_hand(
    file: str, image: np.ndarray, hand: HandResult, sources: Sources, files: dict[str, str]
) -> PageHand:
    box = close_up_box(hand)
    crop, K, affine = overlay.crop_view(image, hand.K, box, VIEW_PIXELS)
    mesh = overlay.overlay_mesh(crop, hand.vertices, hand.faces, K, COLOUR)
    pose = overlay.draw_skeleton(crop, transform_points(hand.keypoints, affine), hand.confidence, None, 0.1)
    mask = np.repeat(silhouette(hand, box, VIEW_PIXELS)[..., None].astype(np.uint8) * 255, 3, axis=2)
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
        ("2D fit", f"{hand.reprojection_px:.1f} px off the keypoints of {hand.notes['keypoints_from']}"),
    ]
    return PageHand(
        file, f"{hand.side} hand, {hand.distance_m:.2f} m from the camera", framed(image, hand.box),
        (("mesh", mesh), ("2D pose", pose), ("silhouette", mask)), hand.vertices, hand.faces, COLOUR,
        None if length is None else length.mm, None if length is None else length.interval_95,
        "" if length is None else length.source, facts, [(labels[kind], path) for kind, path in files.items()],
    )


def framed(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The image at the page's size with the hand's box drawn in."""
    factor = min(1.0, PHOTO_PIXELS / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else image
    centre = (box[:2] + 0.5) * factor - 0.5
    return overlay.draw_box(small, np.array([*centre, box[2] * factor]))
