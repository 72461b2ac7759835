"""Where a video's frames come from: a file, all of them in order, or a camera, always the newest one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from src.photos.image import MIN_SIDE, file_stem
from utils.video_files import Frame, VideoInfo, open_video

logger = logging.getLogger(__name__)

#: ``--video camera:0``, or ``camera:FILE``: a file played as a camera.
LIVE = "camera:"
_USUAL_FPS, _HIGHEST_FPS = 30.0, 1000.0


@dataclass
class Source:
    """A video to work on.

    Attributes:
        name: for files made of it; path: where it is, a camera's number as a path.
        info: size and rate; frames: to be gone through once.
    """

    name: str
    path: Path
    info: VideoInfo
    frames: Iterator[Frame] | Newest

    @property
    def is_live(self) -> bool:
        """Frames come when they come, and those that nobody waits for are dropped."""
        return isinstance(self.frames, Newest)


def open_source(text: str) -> Source:
    """``--video``: a file, ``camera:`` with the number of a camera, or with a file that is played as one.

    Raises:
        FileNotFoundError, ValueError: no such file or camera, or its pictures are too small to show a hand.
    """
    name = text.removeprefix(LIVE)
    if name == text:
        source = Source(file_stem(Path(text)), Path(text), *open_video(text))
    elif name.isdecimal():
        source = Source(f"camera_{int(name)}", Path(f"{LIVE}{name}"), *_open_camera(int(name)))
    else:
        info, frames = open_video(name)
        source = Source(file_stem(Path(name)), Path(name), info._replace(claimed=0), Newest(_played(frames)))
    if min(source.info[:2]) < MIN_SIDE:
        raise ValueError(f"--video {text}: {source.info.width} x {source.info.height} pixels are too few for a hand")
    return source


class Newest:
    """Iterates over frames as they come; of those that come while one is worked on only the newest is given.

    Args:
        frames: that waits for each frame; it is read in a thread of its own.

    Attributes:
        dropped: frames that were not given so far.
    """

    def __init__(self, frames: Iterator[Frame]) -> None:
        self.dropped = 0
        self._frames, self._new, self._ended = frames, threading.Condition(), False
        self._frame: Frame | None = None
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Frame]:
        threading.Thread(target=self._read, name="camera", daemon=True).start()
        try:
            while True:
                with self._new:
                    self._new.wait_for(lambda: self._frame is not None or self._ended)
                    frame, self._frame = self._frame, None
                if frame is None:
                    if self._error is not None:
                        raise self._error
                    return
                yield frame
        finally:
            self._ended = True  # whoever iterates has had enough: let the camera go

    def _read(self) -> None:
        try:
            for frame in self._frames:
                with self._new:
                    if self._ended:
                        break
                    self.dropped += self._frame is not None
                    self._frame = frame
                    self._new.notify_all()
        except Exception as error:
            self._error = error
        finally:
            with self._new:
                self._ended = True
                self._new.notify_all()


def _played(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Each frame when its time has come."""
    begin = time.monotonic()
    for frame in frames:
        time.sleep(max(begin + frame.seconds - time.monotonic(), 0.0))
        yield frame


def _open_camera(number: int) -> tuple[VideoInfo, Newest]:
    capture = cv2.VideoCapture(number)
    done, first = capture.read() if capture.isOpened() else (False, None)
    if not done or first is None:
        capture.release()
        raise ValueError(
            f"--video {LIVE}{number}: no picture comes from a camera of that number; is one there (ls /dev/video*), "
            "and does no other program hold it?"
        )
    fps = capture.get(cv2.CAP_PROP_FPS)
    fps = fps if 0 < fps <= _HIGHEST_FPS else _USUAL_FPS
    return VideoInfo(first.shape[1], first.shape[0], fps, 0), Newest(_taken(capture, first))


def _taken(capture: cv2.VideoCapture, image: np.ndarray | None) -> Iterator[Frame]:
    begin = time.monotonic()
    try:
        while image is not None:
            yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), time.monotonic() - begin)
            image = capture.read()[1]
        logger.warning("no more pictures come from the camera")
    finally:
        capture.release()
