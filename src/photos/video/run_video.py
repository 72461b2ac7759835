"""``run.py --phase demo --video FILE``: an annotated video, each frame's fit started from the frame before it."""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from src.models.mesh_joints import is_mesh_model
from src.photos.api import PhotoEstimator
from src.photos.boxes import Region
from src.photos.camera import Camera
from src.photos.gallery import command_line
from src.photos.image import Photo, UnusableImage, shown_name
from src.photos.perspective import draw_mesh
from src.photos.result import CONVENTIONS, SCHEMA, Result
from src.photos.run_images import LOCK, describe
from src.photos.search import limited
from src.photos.setup import camera_poses, open_tools, stopped_by_signals
from src.photos.video.live_page import live_page
from src.photos.video.smoothing import StreamSmoother
from src.photos.video.sources import open_source
from utils.camera import square_box
from utils.drawing.overlay import IDENTITY_COLOUR
from utils.export.motion import PosedHand, motion_files
from utils.file_lock import locked
from utils.files import no_room_error, writable_folder
from utils.video_files import SUFFIX, count_frames, video_writer

logger = logging.getLogger(__name__)

#: Mean confidence of the keypoints below which a followed hand counts as lost.
LOST = 0.2
#: While there is no hand, the whole frame is searched once in so many frames.
SEARCH_EVERY = 5
_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


class HandTracker:
    """One hand through a video: found once, then followed.

    Args:
        tools: of `open_tools`; path: of the video (its name may have a K file beside it).
        size: width and height of its frames, px.

    Raises:
        UnusableImage: K belongs to pictures of another size.
    """

    def __init__(self, tools: PhotoEstimator, path: Path, size: tuple[int, int]) -> None:
        self.tools, self.path, self.shape = tools, path, tools.shape()
        self.camera: Camera = tools.camera(self.photo(np.zeros((size[1], size[0], 3), np.uint8)))
        self.before: Result | None = None
        self.region: Region | None = None
        self._wait, self._reason = 0, ""

    def photo(self, frame: np.ndarray) -> Photo:
        """The next frame (H,W,3) uint8 RGB."""
        return Photo(self.path.stem, self.path, frame)

    def __call__(self, photo: Photo) -> Result:
        """The hand in the next frame.

        Raises:
            UnusableImage: none is there.
        """
        shape = copy.copy(self.shape)
        try:
            region, before = self._where(photo), self.before
            if before is not None and (before.side == "left") != region.is_left:
                before = None  # the detector takes it for the other hand now
            hand = self.tools.estimate(photo, self.camera, region, self.shape, before)
            if hand.confidence.mean() < LOST:
                raise UnusableImage(f"the hand was lost (mean confidence {hand.confidence.mean():.2f})")
        except Exception as error:
            self.before, self._reason = None, str(error)
            self.shape = shape  # a frame without a hand says nothing of its shape
            raise
        self.before, self.region = hand, region
        hand.notes["warm_start"] = before is not None
        return hand

    def _where(self, photo: Photo) -> Region:
        """Where the hand was, unless it was lost or a detector looks anyway: then the nearest hand."""
        if self.before is not None and self.tools.detector is None:
            joints = self.camera.project(self.before.joints.astype(np.float64))
            joints = joints[np.isfinite(joints).all(axis=1)]  # a lens does not see behind itself
            box = limited(square_box(joints, 1.0), photo.image)
            return Region(box, "followed", self.region.is_left, self.region.side_source)
        if self._wait > 0:
            self._wait -= 1
            raise UnusableImage(self._reason)
        try:
            regions = self.tools.regions(photo)
        except UnusableImage:
            self._wait = SEARCH_EVERY - 1 if self.tools.detector is None else 0
            raise
        if self.before is None:
            return regions[0]
        same = [region for region in regions if region.is_left == self.region.is_left]
        return min(same or regions, key=lambda region: np.linalg.norm(region.box[:2] - self.region.box[:2]))


def video_demo(args: argparse.Namespace) -> Path:
    """Annotate a video.

    Leaves in ``--output`` ``<name>_annotated.mp4`` (without sound) and ``<name>_frames.jsonl``: a line about the whole,
    then one a frame. Whenever it ends, with the video, before it or by a signal, both are valid and belong together;
    until then, and where the disk is full, the lines are in ``<name>_frames.partial.jsonl``. With ``--glb`` and
    ``--bvh`` also ``<name>_hands.glb`` and ``.bvh``, of the frames until then; see `HandMotion`.

    Returns:
        the annotated video.

    Raises:
        FileNotFoundError, ValueError, OSError: no such video, options that make no sense, an output that cannot be
            written or read back. RuntimeError: every frame failed for another reason than that no hand is in it.
    """
    source = open_source(args.video)
    path, info = source.path, source.info
    poses = camera_poses(args, lambda: count_frames(path), "frames")
    output = writable_folder(args.output)
    tools = open_tools(args)
    model, is_animated = tools.estimator.card.model, bool(args.glb or args.bvh)
    if is_animated and is_mesh_model(model):
        raise ValueError(f"--glb and --bvh need the joints' rotations, but {model} gives a mesh alone; leave them out")
    track, with_hand = HandTracker(tools, path, (info.width, info.height)), 0
    errors: list[Exception] = []
    name = source.name
    smooth = StreamSmoother(tools.assets, track.camera) if source.is_live else None
    target, records = output / f"{name}_annotated{SUFFIX}", output / f"{name}_frames.jsonl"
    glb, bvh = (output / f"{name}_hands.{kind}" if getattr(args, kind) else None for kind in ("glb", "bvh"))
    correctives = args.glb == "animated_correctives"
    bar = tqdm(source.frames, total=info.claimed or None, desc=shown_name(path), unit="frame", disable=None)
    with (
        stopped_by_signals(),
        locked(output / LOCK),
        motion_files(info.fps, glb, bvh, joint_names=args.joint_names, correctives=correctives) as motion,
        frame_records(records) as write_line,
        video_writer(target, info) as writer,
        live_page(args.port, source.is_live) as page,
    ):
        head = {"schema": SCHEMA, "command": command_line(), "video": os.fsencode(path).decode("utf-8", "replace")}
        head |= {"fps": info.fps, "width": info.width, "height": info.height, **describe(tools), **CONVENTIONS}
        write_line(json.dumps(head, allow_nan=False))
        for number, (frame, world) in enumerate(zip(bar, poses)):
            record: dict[str, Any] = {"index": number, "seconds": round(frame.seconds, 4)}
            hand, words, photo = None, [], replace(track.photo(frame.image), world=world)
            try:
                hand = track(photo)
                hand = hand if smooth is None else smooth(1, hand, frame.seconds)
                found = record | {"status": "ok"} | hand.record(with_vertices=False)
                line, words = json.dumps(found, allow_nan=False), hand_words(hand, track.camera)
                with_hand += 1
            except UnusableImage as error:
                line = json.dumps(record | {"status": "no usable hand", "reason": str(error)})
                hand, words = None, ["no hand"]
            except Exception as error:  # one frame stops no other
                logger.debug("%s, frame %d", path, number, exc_info=True)
                line = json.dumps(record | {"status": "failed", "reason": f"{type(error).__name__}: {error}"})
                hand, words = None, ["no hand"]
                errors.append(error)
            picture = annotate(photo.image, hand, [*words, f"{frame.seconds:.2f} s, frame {number + 1}"])
            writer.write(picture, frame.seconds)
            if page is not None:
                page.show(picture, words, frame.seconds, source.frames.dropped)
            write_line(line)
            posed = None
            if is_animated and hand is not None and hand.pose is not None and hand.betas is not None:
                moved = hand.in_world(y_down=True)
                posed = PosedHand(hand.assets, moved.pose, hand.betas, moved.joints[0])
            motion.add(frame.seconds, posed)
    if len(errors) == number + 1:
        raise RuntimeError(f"none of {number + 1} frames could be worked on: {errors[0]}") from errors[0]
    if info.claimed and number + 1 < info.claimed:
        logger.warning("%s ends after %d of the %d frames that it announces", path, number + 1, info.claimed)
    logger.info("%d frames, a hand in %d: %s, %s", number + 1, with_hand, target, records)
    return target


def hand_words(hand: Result, camera: Camera) -> list[str]:
    """What is written into a frame about its hand."""
    guessed = " (camera guessed)" if camera.is_guess else ""
    return [
        hand.describe_length(),
        f"{hand.side} hand, {hand.distance_m:.2f} m away{guessed}, {hand.reprojection_px:.1f} px off the keypoints",
    ]


@contextlib.contextmanager
def frame_records(path: Path) -> Iterator[Callable[[str], None]]:
    """Gives a function that writes a line, whole or not at all, which outlives whatever happens afterwards.

    The lines are in a file beside ``path`` and take its place when the block ends; but where it ends with an error of
    the system, as on a full disk, they stay there, and what was at ``path`` before stays too.

    Raises:
        OSError: naming the file, and that of the lines that there are.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    with open(partial, "wb", buffering=0) as lines:

        def write_line(text: str) -> None:
            left, start = (text + "\n").encode(), lines.tell()
            try:
                while left:
                    left = left[lines.write(left) or 0 :]
            except OSError as error:
                lines.truncate(start)
                raise (no_room_error(path, error) or error) from error

        try:
            yield write_line
        except OSError:
            if lines.tell():
                logger.error("what was found until then is in %s", partial)
            else:
                partial.unlink()
            raise
        except BaseException:
            os.replace(partial, path)
            raise
        os.replace(partial, path)


def annotate(frame: np.ndarray, hand: Result | None, lines: list[str]) -> np.ndarray:
    """The frame (H,W,3) uint8 RGB with the mesh drawn in and ``lines`` in a corner, the first one bold."""
    return write_lines(frame if hand is None else draw_mesh(frame, hand, IDENTITY_COLOUR, 0.8), lines)


def write_lines(frame: np.ndarray, lines: list[str]) -> np.ndarray:
    """Text on a dark translucent panel at the lower left, sized by the frame."""
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
