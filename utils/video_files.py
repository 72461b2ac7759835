"""Videos in and out: frames as RGB, and an output that is whole whenever writing ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

#: MPEG-4 part 2 in .mp4: what OpenCV's wheels can write everywhere without a display or further libraries.
CODEC, SUFFIX = "mp4v", ".mp4"
_DEFAULT_FPS = 25.0


class VideoInfo(NamedTuple):
    """Size in pixels, frames a second, and the number of frames that the file claims (0: it does not say)."""

    width: int
    height: int
    fps: float
    claimed: int


def open_video(path: str | Path) -> tuple[VideoInfo, Iterator[np.ndarray]]:
    """A video's facts and its frames (H,W,3) uint8 RGB, upright, as far as they can be decoded.

    Raises:
        FileNotFoundError: no such file. ValueError: it holds no video that can be decoded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"--video {path}: no such file")
    capture = cv2.VideoCapture(str(path))
    done, first = capture.read() if capture.isOpened() else (False, None)
    if not done:
        capture.release()
        raise ValueError(f"--video {path}: no frame of it can be decoded; is it a video, and complete?")
    fps = capture.get(cv2.CAP_PROP_FPS)
    info = VideoInfo(
        first.shape[1],
        first.shape[0],
        fps if np.isfinite(fps) and 0 < fps <= 1000 else _DEFAULT_FPS,
        max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))),
    )
    return info, _frames(capture, first)


def _frames(capture: cv2.VideoCapture, frame: np.ndarray | None) -> Iterator[np.ndarray]:
    try:
        done = True
        while done:
            yield np.ascontiguousarray(frame[..., ::-1])
            done, frame = capture.read()
    finally:
        capture.release()


class VideoWriter:
    """Writes frames beside ``path`` and puts the file there when it is closed, with however many frames it has.

    Odd sizes are made even by repeating the last row or column.

    Args:
        path: .mp4 file; info: size and frames a second of what will be written.

    Raises:
        OSError: the encoder cannot open the file.
    """

    def __init__(self, path: Path, info: VideoInfo) -> None:
        self.path, self.info, self.count = path, info, 0
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
        self._odd = (info.height % 2, info.width % 2)  # the encoder takes even sizes only
        size = (info.width + self._odd[1], info.height + self._odd[0])
        self._writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter_fourcc(*CODEC), info.fps, size)
        if not self._writer.isOpened():
            self._temporary.unlink(missing_ok=True)
            raise OSError(f"{path}: cannot be opened for writing video ({CODEC}, {size[0]} x {size[1]} pixels)")

    def write(self, frame: np.ndarray) -> None:
        """Append (H,W,3) uint8 RGB of the size promised."""
        wanted = (self.info.height, self.info.width, 3)
        if frame.shape != wanted:
            raise ValueError(f"frame {self.count} is {frame.shape}; it must be {wanted}")
        bottom, right = self._odd
        if bottom or right:
            frame = np.pad(frame, ((0, bottom), (0, right), (0, 0)), mode="edge")
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))
        self.count += 1

    def close(self) -> None:
        """Finish the file; without a frame there is none."""
        self._writer.release()
        if self.count:
            os.replace(self._temporary, self.path)
        self._temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def video_writer(path: Path, info: VideoInfo) -> Iterator[VideoWriter]:
    """A `VideoWriter` that is closed however the block ends: what was written stays a valid video."""
    writer = VideoWriter(path, info)
    try:
        yield writer
    finally:
        writer.close()
