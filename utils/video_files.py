"""Videos in and out: frames as RGB with their times, and an output that is whole whenever writing ends."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.cameras.mp4_matrix import mirroring, shown

logger = logging.getLogger(__name__)

#: MPEG-4 part 2 in .mp4: what OpenCV's wheels can write everywhere without a display or further libraries.
CODEC, SUFFIX = "mp4v", ".mp4"
#: MPEG-4 part 2 stores the frame rate as a fraction of 16-bit numbers.
_LARGEST_TIMEBASE = 65535
#: No camera is faster: such a rate, or such steps between time stamps, are damage.
_DEFAULT_FPS, _HIGHEST_FPS = 25.0, 10_000.0
#: Frames whose times tell the rate; pictures longer or higher than this are refused, px.
_SAMPLED_FRAMES, _LARGEST_SIDE = 120, 16384
#: So many frames in a row may be damaged before a video is taken to end.
_DAMAGED_FRAMES = 100
#: A gap in a video's times is filled with the frame before it, but for no longer than this, s.
_LONGEST_GAP = 10.0


class VideoInfo(NamedTuple):
    """Size in pixels, frames a second, and the number of frames that the file claims (0: it does not say)."""

    width: int
    height: int
    fps: float
    claimed: int


class Frame(NamedTuple):
    """(H,W,3) uint8 RGB, upright, and when it is shown, s after the first one; times never decrease."""

    image: np.ndarray
    seconds: float


def open_video(path: str | Path) -> tuple[VideoInfo, Iterator[Frame]]:
    """A video's facts and its frames (px, with their times in seconds), as far as they can be decoded.

    The frame rate is the container's where its time stamps agree, else that of the usual step between the stamps. Where
    neither makes sense, frames are taken to come at 25 a second, with a warning.

    Raises:
        FileNotFoundError: no such file. ValueError: it holds no video that can be decoded, or one of absurd size.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"--video {path}: no such file")
    with _plain_name(path) as name:
        capture, mirror = cv2.VideoCapture(name), mirroring(path)
        if mirror is not None:
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # it would only turn
        done, first = capture.read() if capture.isOpened() else (False, None)
        if not done or first is None:
            capture.release()
            raise ValueError(f"--video {path}: no frame of it can be decoded; is it a video, and complete?")
        fps, timed = _frame_rate(name, capture.get(cv2.CAP_PROP_FPS))
    before = (first if mirror is None else shown(first, mirror)).shape[1::-1]
    size = _square_pixels(capture, *before, mirror)
    if size != before:
        logger.warning(
            "%s: its pixels are no squares; frames of %d x %d are stretched to %d x %d, of which K and boxes must be",
            path, *before, *size,
        )  # fmt: skip
    if max(first.shape[:2]) > _LARGEST_SIDE:
        capture.release()
        raise ValueError(f"--video {path}: its frames are {first.shape[1]} x {first.shape[0]} px, too large")
    claimed = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    claimed = int(claimed) if math.isfinite(claimed) and 0 < claimed < 1e9 else 0
    if not timed:
        logger.warning("%s: its time stamps make no sense; frames are taken to come at %g a second", path, fps)

    def upright(image: np.ndarray) -> np.ndarray:
        image = image if mirror is None else shown(image, mirror)
        return image if image.shape[1::-1] == size else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)

    return VideoInfo(*size, fps, claimed), _frames(capture, first, fps, timed, claimed, upright)


def _square_pixels(capture: cv2.VideoCapture, width: int, height: int, mirror: np.ndarray | None) -> tuple[int, int]:
    """Width and height of frames whose pixels are squares, enlarged where the container says that they are not (DV,
    HDV); of a video that is turned upright, its sides too."""
    high, wide = capture.get(cv2.CAP_PROP_SAR_DEN), capture.get(cv2.CAP_PROP_SAR_NUM)
    ratio = wide / high if high > 0 and wide > 0 else 1.0
    turned = int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90 if mirror is None else mirror[0, 0] == 0
    ratio = 1 / ratio if turned else ratio
    if not 0.1 < ratio < 10 or abs(ratio - 1) < 0.01:
        return width, height
    return (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))


@contextlib.contextmanager
def _plain_name(path: Path) -> Iterator[str]:
    """A name that FFmpeg takes for a file: not for a protocol (``12:30.mp4``) or a pattern, and in UTF-8."""
    absolute = os.path.abspath(path)
    if absolute.isascii() and "%" not in absolute:
        yield absolute
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "video"
        link.symlink_to(absolute)
        yield str(link)


def _frame_rate(name: str, claimed: float) -> tuple[float, bool]:
    """``claimed``, unless it is absurd or the first frames' times say another; and whether these make sense."""
    claimed = claimed if math.isfinite(claimed) and 0 < claimed <= _HIGHEST_FPS else 0.0
    capture = cv2.VideoCapture(name)
    times: list[float] = []
    while len(times) < _SAMPLED_FRAMES and capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    steps = np.diff(times)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if not 1 / _HIGHEST_FPS <= usual:
        return claimed or _DEFAULT_FPS, usual == 0  # without any steps `_frames` makes them
    return claimed if claimed and abs(usual * claimed - 1) < 0.02 else 1 / usual, True


def _frames(
    capture: cv2.VideoCapture,
    image: np.ndarray | None,
    fps: float,
    timed: bool,
    claimed: int,
    upright: Callable[[np.ndarray], np.ndarray],
) -> Iterator[Frame]:
    """The rest of the video; a frame without a later time than the one before comes a usual step after it.

    Args:
        timed: time stamps make sense; else every frame comes a usual step after the one before.
        claimed: how many frames there should be: a damaged stretch in the middle is passed over.
        upright: makes of a decoded frame what is shown, of square pixels.
    """
    try:
        start, last, count = None, -1 / fps, 0
        while image is not None:
            stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            start = stamp if start is None else start
            seconds = stamp - start
            if not (timed and math.isfinite(seconds) and last < seconds):
                seconds = last + 1 / fps
            last = seconds
            yield Frame(cv2.cvtColor(upright(image), cv2.COLOR_BGR2RGB), max(seconds, 0.0))
            count += 1
            tries = 1 + min(max(claimed - count, 0), _DAMAGED_FRAMES)
            image = next((image for done, image in (capture.read() for _ in range(tries)) if done), None)
    finally:
        capture.release()


def writable_rate(fps: float) -> float:
    """The closest frame rate (frames a second) that the encoder takes: OpenCV makes it a fraction of decimals."""
    for scale in (1000, 100, 10, 1):
        if round(fps * scale) <= _LARGEST_TIMEBASE:
            return max(round(fps * scale), 1) / scale
    raise ValueError(f"{fps:g} frames a second cannot be written")


class VideoWriter(contextlib.AbstractContextManager):
    """Writes frames beside ``path`` and puts the file there when it is closed, with however many frames it has: however
    its block ends, what was written stays a valid video.

    Odd sizes are made even by repeating the last row or column. The file has a constant rate: frames with times are
    repeated, or left out where they come faster, so that each is shown when it should.

    Args:
        path: .mp4 file; info: size and frames a second of what will be written.

    Raises:
        OSError: the encoder cannot open the file.
    """

    def __init__(self, path: Path, info: VideoInfo) -> None:
        self.path, self.info, self.count = path, info, 0
        self.fps = writable_rate(info.fps)
        self._temporary = path.absolute().with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
        self._odd = (info.height % 2, info.width % 2)  # the encoder takes even sizes only
        self._last: np.ndarray | None = None
        self._shift = 0.0
        size = (info.width + self._odd[1], info.height + self._odd[0])
        self._writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter.fourcc(*CODEC), self.fps, size)
        if not self._writer.isOpened():
            self._temporary.unlink(missing_ok=True)
            free = shutil.disk_usage(path.parent).free / 1e6
            raise OSError(
                f"{path}: cannot be opened for writing video ({CODEC}, {size[0]} x {size[1]} pixels); is the disk "
                f"full? ({free:.0f} MB free in {path.parent})"
            )

    def write(self, frame: np.ndarray, seconds: float | None = None) -> None:
        """Append (H,W,3) uint8 RGB of the size promised, shown from ``seconds`` on; None: after the one before."""
        wanted = (self.info.height, self.info.width, 3)
        if frame.shape != wanted:
            raise ValueError(f"frame {self.count} is {frame.shape}; it must be {wanted}")
        bottom, right = self._odd
        if bottom or right:
            frame = np.pad(frame, ((0, bottom), (0, right), (0, 0)), mode="edge")
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if seconds is not None:
            place = round((seconds - self._shift) * self.fps)
            if place - self.count > _LONGEST_GAP * self.fps:  # a clock that jumped
                self._shift += (place - self.count) / self.fps
                place = self.count
            if place < self.count:
                return
            while self._last is not None and self.count < place:
                self._append(self._last)
        self._append(frame)
        self._last = frame

    def _append(self, frame: np.ndarray) -> None:
        self._writer.write(frame)
        self.count += 1

    def close(self) -> None:
        """Finish the file, read it back and put it in place; without a frame there is none.

        Raises:
            OSError: it does not hold what was written, as on a full disk; a file that was there before stays.
        """
        self._writer.release()
        try:
            if not self.count:
                return
            readable = count_frames(self._temporary)
            if readable != self.count:
                free = shutil.disk_usage(self.path.parent).free / 1e6
                before = " The file of that name is as it was." if self.path.exists() else ""
                raise OSError(
                    f"{self.path}: of the {self.count} frames written {readable} can be read back; is the disk full? "
                    f"({free:.0f} MB free in {self.path.parent}).{before}"
                )
            os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        self.close()


def count_frames(path: Path) -> int:
    """Frames of a video that can be decoded; damaged stretches are passed over, as `open_video` does."""
    with _plain_name(path) as name:
        capture, count = cv2.VideoCapture(name), 0
        while any(capture.grab() for _ in range(1 + _DAMAGED_FRAMES)):
            count += 1
        capture.release()
    return count
