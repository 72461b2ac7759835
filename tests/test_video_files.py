"""Videos whose names, times, rates or disks are odd."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from photo_cases import Fixed, K, arguments

from src.photos.api import PhotoEstimator
from src.photos.camera import Camera
from src.photos.estimator import HandInPicture
from src.photos.image import UnusableImage
from src.photos.result import Result
from src.photos.video import run_video
from src.photos.video.tracker import HandTracker
from utils.video_files import VideoInfo, VideoWriter, count_frames, open_video, writable_rate

FAULTS = Path("../../shared/data/faults")
WHOLE = cv2.VideoCapture
needs_faults = pytest.mark.skipif(not FAULTS.is_dir(), reason=f"{FAULTS} is not there")


def write_clip(path: Path, count: int = 12, fps: float = 30.0) -> Path:
    with VideoWriter(path, VideoInfo(64, 48, fps, 0)) as writer:
        for number in range(count):
            writer.write(np.full((48, 64, 3), 20 * (number + 1), np.uint8))
    return path


class Capture:
    """A capture around OpenCV's; a class made of that one crashes."""

    def __init__(self, name: str) -> None:
        self.whole = WHOLE(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)


def test_frames_of_another_size_come_in_the_first_ones(tmp_path: Path) -> None:
    """A stream of JPEG pictures, landscape and then upright and larger: all frames fit one file and one camera."""
    sizes = [(48, 64)] * 3 + [(96, 128)] * 3 + [(64, 48)] * 3
    pictures = [cv2.imencode(".jpg", np.full((*size, 3), 25 * n, np.uint8))[1] for n, size in enumerate(sizes)]
    path = tmp_path / "clip.mjpeg"
    path.write_bytes(b"".join(picture.tobytes() for picture in pictures))
    info, frames = open_video(path)
    images = [frame.image for frame in frames]
    assert (info.width, info.height) == (64, 48) and {image.shape for image in images} == {(48, 64, 3)}
    assert np.allclose([image.mean() for image in images], 25 * np.arange(9), atol=3)


def boxes(data: bytes, start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Type -> (offset, size) of the MP4 boxes between two offsets."""
    found = {}
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        found[kind] = (start, size)
        start += size
    return found


def with_steps(path: Path, steps: list[tuple[int, float]]) -> None:
    """Give an MP4 of constant rate (frames, part of its step) instead: its table of times is at the file's end."""
    data, chain, start, end = bytearray(path.read_bytes()), [], 0, path.stat().st_size
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        offset, size = boxes(data, start, end)[kind]
        chain.append(offset)
        start, end = offset + 8, offset + size
    step = struct.unpack_from(">I", data, start + 12)[0]
    table = struct.pack(">II", 0, len(steps)) + b"".join(struct.pack(">II", n, round(part * step)) for n, part in steps)
    grown = len(table) - (end - start)
    data[start:end] = table
    for offset in chain:
        struct.pack_into(">I", data, offset, struct.unpack_from(">I", data, offset)[0] + grown)
    path.write_bytes(data)


def test_times_are_those_of_the_container(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 12, 10.0)
    with_steps(clip, [(6, 1.0), (6, 0.25)])  # the second half four times as fast
    info, frames = open_video(clip)
    times = [frame.seconds for frame in frames]
    np.testing.assert_allclose(times, [*np.arange(7) * 0.1, *(0.6 + np.arange(1, 6) * 0.025)], atol=2e-3)
    with VideoWriter(tmp_path / "out.mp4", info._replace(fps=40.0)) as writer:
        for time in times:
            writer.write(np.full((48, 64, 3), 200 if time > 0.55 else 20, np.uint8), time)
    bright = [frame.seconds for frame in open_video(tmp_path / "out.mp4")[1] if frame.image.mean() > 100]
    assert bright[0] == pytest.approx(0.6, abs=0.03) and bright[-1] == pytest.approx(times[-1], abs=0.03)


@pytest.mark.parametrize(
    ("wide", "high", "size"), [(4, 3, (85, 48)), (1, 2, (64, 96)), (1, 1, (64, 48)), (0, 0, (64, 48))]
)
def test_pixels_that_are_no_squares_are_made_squares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wide: int, high: int, size: tuple[int, int]
) -> None:
    """A hand of an HDV camera came out a quarter too near."""

    class Anamorphic(Capture):
        def get(self, what: int) -> float:
            return {cv2.CAP_PROP_SAR_NUM: wide, cv2.CAP_PROP_SAR_DEN: high}.get(what) or self.whole.get(what)

    path = write_clip(tmp_path / "clip.mp4")
    monkeypatch.setattr("utils.video_files.cv2.VideoCapture", Anamorphic)
    info, frames = open_video(path)
    images = [frame.image for frame in frames]
    assert (info.width, info.height) == size and {image.shape[1::-1] for image in images} == {size}
    assert np.allclose([image.mean() for image in images], 20 * np.arange(1, 13), atol=4)


@pytest.mark.parametrize(
    ("a", "b", "c", "d"), [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0), (0, 1, -1, 0), (-1, 0, 0, -1)]
)
def test_mirrored_videos_are_shown_as_players_show_them(tmp_path: Path, a: int, b: int, c: int, d: int) -> None:
    """A phone's mirrored selfie came out upside down."""
    path, corner = tmp_path / "clip.mp4", np.zeros((48, 64, 3), np.uint8)
    corner[:24, :32], corner[:24, 32:], corner[24:, :32] = 250, 170, 90  # of the stored frame
    with VideoWriter(path, VideoInfo(64, 48, 30.0, 0)) as writer:
        for _ in range(3):
            writer.write(corner)
    content = path.read_bytes()
    place = content.index(b"tkhd") + 4 + 40
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:place] + matrix + content[place + len(matrix) :])
    info, frames = open_video(path)
    images = [frame.image for frame in frames]
    y, x = np.mgrid[:48, :64]
    right, down = a * x + c * y, b * x + d * y
    expected = np.zeros((np.ptp(down) + 1, np.ptp(right) + 1), np.uint8)
    expected[down - down.min(), right - right.min()] = corner[..., 0]
    assert len(images) == 3 and (info.width, info.height) == expected.shape[::-1]
    assert all(np.median(np.abs(image[..., 0].astype(int) - expected)) < 6 for image in images)


def test_a_damaged_stretch_does_not_end_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Damaged(Capture):
        reads = 0

        def read(self) -> tuple[bool, np.ndarray | None]:
            self.reads += 1
            done, image = self.whole.read()
            return (False, None) if 4 <= self.reads < 7 else (done, image)

        def grab(self) -> bool:
            return self.read()[0]

    path = write_clip(tmp_path / "clip.mp4")
    monkeypatch.setattr("utils.video_files.cv2.VideoCapture", Damaged)
    frames = list(open_video(path)[1])
    assert [round(frame.image.mean() / 20) for frame in frames] == [1, 2, 3, 7, 8, 9, 10, 11, 12]
    np.testing.assert_allclose(
        [frame.seconds for frame in frames], np.array([0, 1, 2, 6, 7, 8, 9, 10, 11]) / 30, atol=2e-3
    )
    assert count_frames(path) == len(frames)


def test_a_clock_that_jumps_fills_no_disk(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", VideoInfo(64, 48, 30.0, 0)) as writer:
        for time in (0.0, 0.033, 1e9, 1e9 + 0.033):
            writer.write(np.zeros((48, 64, 3), np.uint8), time)
        assert writer.count == 4


@pytest.mark.parametrize("fps", [119.743, 120000 / 1001, 29.97, 65.5361, 239.7612])
def test_odd_frame_rates(tmp_path: Path, fps: float) -> None:
    info, frames = open_video(write_clip(tmp_path / "a.mp4", 12, fps))
    assert len(list(frames)) == 12 and info.fps == pytest.approx(fps, rel=1e-3)
    assert writable_rate(fps) == pytest.approx(fps, rel=1e-3)


def with_avi_rate(path: Path, scale: int, rate: int) -> Path:
    """Write another rate (rate / scale frames a second) into an AVI's headers."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<II", data, data.find(b"strh") + 28, scale, rate)
    struct.pack_into("<I", data, data.find(b"avih") + 8, 1_000_000 * scale // max(rate, 1))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("scale", "rate", "fps", "warns"), [(1, 1_000_000, 25.0, True), (1, 2**32 - 1, 25.0, True), (1, 960, 960.0, False)]
)
def test_rates_beyond_any_camera(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scale: int, rate: int, fps: float, warns: bool
) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(5):
        writer.write(np.full((48, 64, 3), 40 * number, np.uint8))
    writer.release()
    info, frames = open_video(with_avi_rate(tmp_path / "a.avi", scale, rate))
    with VideoWriter(tmp_path / "b.mp4", info) as copy:
        for frame in frames:
            copy.write(frame.image, frame.seconds)
    assert info.fps == pytest.approx(fps) and len(list(open_video(tmp_path / "b.mp4")[1])) == 5
    assert ("time stamps make no sense" in caplog.text) == warns


@needs_faults
def test_the_video_with_the_odd_frame_rate(tmp_path: Path) -> None:
    info, frames = open_video(FAULTS / "fps_119_743.mp4")
    with VideoWriter(tmp_path / "a.mp4", info) as writer:
        for frame in frames:
            writer.write(frame.image, frame.seconds)
    assert writer.count == 12


@pytest.mark.parametrize("name", ["12:30.mp4", "http:x.mp4", "a%03d.mp4", "ä#?.mp4"])
def test_video_names_are_no_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_clip(tmp_path / "clip.mp4", 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(open_video(name)[1])) == count_frames(Path(name)) == 3


def test_a_full_disk_keeps_the_earlier_video(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the encoder sees its writes fail, and says nothing."""
    earlier = write_clip(tmp_path / "a.mp4").read_bytes()
    script = f"""
import resource, numpy as np
from pathlib import Path
from utils.video_files import VideoInfo, VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
with VideoWriter(Path({str(tmp_path / "a.mp4")!r}), VideoInfo(96, 96, 25.0, 0)) as writer:
    for number in range(60):
        writer.write(np.roll(noise, number, axis=0))
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert finished.returncode != 0 and "can be read back; is the disk full?" in finished.stderr, finished.stderr
    assert (tmp_path / "a.mp4").read_bytes() == earlier and [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def demo_of(clip: Path, output: Path, monkeypatch: pytest.MonkeyPatch, look: object = None) -> list[dict]:
    """The demo with an estimator that sees the same hand in every frame; its records."""
    monkeypatch.setattr(run_video, "open_tools", lambda _: PhotoEstimator(Fixed(look)))
    run_video.video_demo(arguments("--video", str(clip), "--output", str(output)))
    (records,) = output.glob("*_frames.jsonl")
    return [json.loads(line) for line in records.read_text().splitlines()]


def test_a_name_as_long_as_file_systems_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 2).rename(tmp_path / ("n" * 250 + ".mp4"))
    _, *frames = demo_of(clip, tmp_path / "out", monkeypatch)
    assert [frame["status"] for frame in frames] == ["ok", "ok"]


def test_a_number_that_json_cannot_hold_is_one_frames_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sometimes(Fixed):
        def estimate(self, seen: HandInPicture) -> Result:
            result = super().estimate(seen)
            return replace(result, reprojection_px=float("nan")) if self.calls == 2 else result

    monkeypatch.setattr(run_video, "open_tools", lambda _: PhotoEstimator(Sometimes()))
    clip = write_clip(tmp_path / "a.mp4", 3)
    words = ("--video", str(clip), "--output", str(tmp_path / "out"), "--each_frame_alone")
    path = run_video.video_demo(arguments(*words))
    _, *frames = [json.loads(line) for line in (tmp_path / "out" / "a_frames.jsonl").read_text().splitlines()]
    assert [frame["status"] for frame in frames] == ["ok", "failed", "ok"] and len(list(open_video(path)[1])) == 3


def test_a_full_disk_keeps_the_records_of_the_earlier_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_files: object
) -> None:
    clip, output = write_clip(tmp_path / "a.mp4", 3), tmp_path / "out"
    demo_of(clip, output, monkeypatch)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    write_clip(clip, 5)

    def full(call: int) -> None:  # from the third frame on, files can grow no further than the records have by then
        if call == 3:
            small_files((output / "a_frames.partial.jsonl").stat().st_size + 100)

    with pytest.raises(OSError, match="a_frames.jsonl: not written, .*as it was.*Make room|of the 3 frames"):
        demo_of(clip, output, monkeypatch, full)
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.name in before} == before
    lines = (output / "a_frames.partial.jsonl").read_text().splitlines()
    assert [json.loads(line).get("index") for line in lines] == [None, 0, 1]  # whole ones only


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_whoever_is_impatient_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A second signal while the video is being closed."""
    clip, output, close = write_clip(tmp_path / "a.mp4", 5), tmp_path / "out", VideoWriter.close

    def slowly(self: VideoWriter) -> None:
        os.kill(os.getpid(), number)
        close(self)

    monkeypatch.setattr(VideoWriter, "close", slowly)
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # background jobs ignore SIGINT, under nohup SIGHUP too
    try:
        with pytest.raises(KeyboardInterrupt):
            demo_of(clip, output, monkeypatch, lambda call: os.kill(os.getpid(), number) if call == 3 else None)
    finally:
        signal.signal(number, before)
    assert len(list(open_video(output / "a_annotated.mp4")[1])) == 2
    assert len((output / "a_frames.jsonl").read_text().splitlines()) == 3
    assert sorted(path.name for path in output.iterdir()) == ["a_annotated.mp4", "a_frames.jsonl"]


def test_one_odd_frame_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(call: int) -> None:
        if call in (2, 3):
            raise RuntimeError("a solver's own error")

    clip = write_clip(tmp_path / "a.mp4", 6, 10.0)
    with_steps(clip, [(3, 1.0), (3, 0.5)])
    tools = PhotoEstimator(Fixed(look))
    monkeypatch.setattr(run_video, "open_tools", lambda _: tools)
    words = arguments("--video", str(clip), "--output", str(tmp_path / "out"), "--each_frame_alone")
    run_video.video_demo(words)
    _, *lines = [json.loads(line) for line in (tmp_path / "out" / "a_frames.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["ok", "failed", "failed", "ok", "ok", "ok"]
    assert lines[1]["reason"] == "RuntimeError: a solver's own error" and not lines[3]["warm_start"]
    np.testing.assert_allclose([line["seconds"] for line in lines], [0, 0.1, 0.2, 0.3, 0.35, 0.4], atol=2e-3)
    monkeypatch.setattr(run_video, "open_tools", lambda _: replace(tools, K=Camera(10 * K, "--K x")))
    with pytest.raises(ValueError, match="--K x.*cannot belong to a picture of 64 x 48"):
        run_video.video_demo(words)
    tools.estimator.look = lambda _: 1 / 0
    monkeypatch.setattr(run_video, "open_tools", lambda _: tools)
    with pytest.raises(RuntimeError, match="none of 6 frames"):
        run_video.video_demo(words)


def test_frames_without_a_hand_say_nothing_of_its_shape(tmp_path: Path) -> None:
    class Predicting(Fixed):
        """Predicts a shape in every frame, also in those in which it then finds no hand."""

        def estimate(self, seen: HandInPicture) -> Result:
            seen.shape.update(np.full(10, float(self.calls)))
            return super().estimate(seen)

    def look(call: int) -> None:
        if call in (2, 4):
            raise UnusableImage("no hand")

    track = HandTracker(PhotoEstimator(Predicting(look)), tmp_path / "a.mp4", (64, 48))
    photo = track.photo(np.zeros((48, 64, 3), np.uint8))
    for call in range(1, 5):
        (hand,) = track(photo, call / 30)
        assert (hand.result is None) == (call in (2, 4)) and hand.reason == ("no hand" if call in (2, 4) else "")
    shape = track.people.shape(track.tracks[0])
    assert shape.count == 2
    np.testing.assert_allclose(shape.betas, (0 + 2) / 2)  # of the first and the third frame


def test_a_video_that_cannot_be_opened_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, output = write_clip(tmp_path / "a.mp4", 3), tmp_path / "out"

    class Closed:
        def __init__(self, *_: object) -> None: ...

        fourcc = staticmethod(lambda *_: 0)
        isOpened = staticmethod(lambda: False)  # noqa: N815 (OpenCV's name)

    monkeypatch.setattr(cv2, "VideoWriter", Closed)
    with pytest.raises(OSError, match=r"a_annotated.mp4: cannot be opened .*MB free in .*out"):
        demo_of(clip, output, monkeypatch)
    assert not list(output.iterdir())
