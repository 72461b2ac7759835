"""``run.py --phase demo --video FILE``: an annotated video, each frame's fit started from the frame before it."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from src.photos.boxes import Region
from src.photos.camera import Camera
from src.photos.image import MIN_SIDE, Photo, UnusableImage
from src.photos.record import CONVENTIONS, SCHEMA, Sources, command_line, hand_record, length_words
from src.photos.result import HandResult
from src.photos.run_images import describe
from src.photos.search import limited
from src.photos.setup import DemoTools, open_tools, writable_folder
from src.photos.video_frames import annotate
from utils.camera import project_numpy, square_box
from utils.video_files import SUFFIX, open_video, video_writer

logger = logging.getLogger(__name__)

#: Mean confidence of the keypoints below which a followed hand counts as lost.
LOST = 0.2
#: While there is no hand, the whole frame is searched once in so many frames.
SEARCH_EVERY = 5


class HandTracker:
    """One hand through a video: found once, then followed.

    Args:
        tools: of `open_tools`; path: of the video (its name may have a K file beside it).
    """

    def __init__(self, tools: DemoTools, path: Path) -> None:
        self.tools, self.path, self.belief = tools, path, tools.belief()
        self.before: HandResult | None = None
        self.camera: Camera | None = None
        self.region: Region | None = None
        self._wait, self._reason = 0, ""

    def __call__(self, frame: np.ndarray) -> tuple[HandResult, Sources]:
        """The hand in the next frame (H,W,3) uint8 RGB.

        Raises:
            UnusableImage: none is there.
        """
        photo = Photo(self.path.stem, self.path, frame)
        self.camera = self.camera or self.tools.camera(photo)
        try:
            region, warm = self._where(photo), self.before is not None
            hand = self.tools.estimate(photo, self.camera, region, self.belief, self.before)
            if hand.confidence.mean() < LOST:
                raise UnusableImage(f"the hand was lost (mean confidence {hand.confidence.mean():.2f})")
        except UnusableImage as error:
            self.before, self._reason = None, str(error)
            raise
        self.before, self.region = hand, region
        hand.notes["warm_start"] = warm
        return hand, Sources(self.camera.source, region.source, region.side_source)

    def _where(self, photo: Photo) -> Region:
        """Where the hand was, unless it was lost or a detector looks at every frame anyway."""
        if self.before is not None and self.tools.keypoints == "network":
            seen = project_numpy(self.before.joints.astype(np.float64), self.camera.K)
            box = limited(square_box(seen, 1.0), photo.image)
            return Region(box, "followed", self.region.is_left, self.region.side_source)
        if self._wait > 0:
            self._wait -= 1
            raise UnusableImage(self._reason)
        try:
            return self.tools.region(photo)
        except UnusableImage:
            self._wait = SEARCH_EVERY - 1 if self.tools.keypoints == "network" else 0
            raise


def video_demo(args: argparse.Namespace) -> Path:
    """Annotate a video.

    Leaves in ``--output`` ``<name>_annotated.mp4`` (without sound) and ``<name>_frames.jsonl``: a line about the whole,
    then one a frame. Whenever it ends, with the video, before it or by a signal, what was written is valid.

    Returns:
        the annotated video.

    Raises:
        FileNotFoundError, ValueError, OSError: no such video, options that make no sense, an output that cannot be
            written.
    """
    path = Path(args.video)
    info, frames = open_video(path)
    if min(info.width, info.height) < MIN_SIDE:
        raise ValueError(f"--video {path}: {info.width} x {info.height} pixels are too few to show a hand")
    output = writable_folder(args.output)
    tools = open_tools(args)
    track, found = HandTracker(tools, path), 0
    target, records = output / f"{path.stem}_annotated{SUFFIX}", output / f"{path.stem}_frames.jsonl"
    bar = tqdm(frames, total=info.claimed or None, desc=path.name, unit="frame", disable=None)
    with video_writer(target, info) as writer, open(records, "w", encoding="utf-8") as lines, stopped_by_signals():
        head = {"schema": SCHEMA, "command": command_line(), "video": str(path), "fps": info.fps}
        _line(lines, {**head, "width": info.width, "height": info.height, **describe(tools), **CONVENTIONS})
        for number, frame in enumerate(bar):
            record: dict[str, Any] = {"index": number, "seconds": round(number / info.fps, 4)}
            hand, words = None, []
            try:
                hand, sources = track(frame)
                record |= {"status": "ok"} | hand_record(hand, sources, with_vertices=False)
                words, found = hand_words(hand, track.camera), found + 1
            except UnusableImage as error:
                record |= {"status": "no usable hand", "reason": str(error)}
                words = ["no hand"]
            writer.write(annotate(frame, hand, [*words, f"{number / info.fps:.2f} s, frame {number + 1}"]))
            _line(lines, record)
    if info.claimed and writer.count < info.claimed:
        logger.warning("%s ends after %d of the %d frames that it announces", path, writer.count, info.claimed)
    logger.info("%d frames, a hand in %d: %s, %s", writer.count, found, target, records)
    return target


def hand_words(hand: HandResult, camera: Camera) -> list[str]:
    """What is written into a frame about its hand."""
    guessed = " (camera guessed)" if camera.is_guess else ""
    return [
        length_words(hand),
        f"{hand.side} hand, {hand.distance_m:.2f} m away{guessed}, {hand.reprojection_px:.1f} px off the keypoints",
    ]


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that files are closed."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: signals go elsewhere
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _line(handle: Any, value: dict[str, Any]) -> None:
    handle.write(json.dumps(value, allow_nan=False) + "\n")
    handle.flush()
