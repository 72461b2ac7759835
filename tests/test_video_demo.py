"""The demo on a video: whatever happens to it, what was written is a video, and the fit goes from frame to frame."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from photo_cases import arguments

from datasets.synthetic.freihand_writer import write_freihand
from datasets.synthetic.samples import copy_freihand, write_video
from src.photos.video import run_video as module
from src.photos.video.run_video import video_demo
from utils.video_files import VideoInfo, VideoWriter, open_video

FRAMES, SHIFT = 6, 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, list[float]]:
    """A hand that moves to the right by SHIFT pixels a frame; its camera lies beside it. Odd sizes on purpose."""
    root, folder = tmp_path_factory.mktemp("freihand"), tmp_path_factory.mktemp("clip")
    write_freihand(root, 1, 1, seed=5)
    (picture,) = copy_freihand(root, folder, 1)
    image, K = cv2.imread(str(picture))[..., ::-1], np.load(folder / "00000000_K.npy")
    box = json.loads((folder / "00000000_bbox.json").read_text())
    np.save(folder / "hand_K.npy", K)
    frames = [cv2.warpAffine(image, np.float32([[1, 0, SHIFT * i], [0, 1, 0]]), (255, 231)) for i in range(FRAMES)]
    with VideoWriter(folder / "hand.mp4", VideoInfo(255, 231, 12.0, 0)) as writer:
        for frame in frames:
            writer.write(frame)
    return folder / "hand.mp4", np.stack(frames), box


def demo(video: Path, output: Path, box: list[float] | None = None) -> tuple[Path, list[dict]]:
    words = [] if box is None else ["--bbox", *(str(value) for value in box)]
    path = video_demo(arguments("--video", str(video), "--output", str(output), "--keypoints", "network", *words))
    return path, [json.loads(line) for line in (output / f"{video.stem}_frames.jsonl").read_text().splitlines()]


def count(path: Path) -> int:
    return sum(1 for _ in open_video(path)[1])


def test_the_video_of_the_demo_script_is_written(tmp_path: Path) -> None:
    """A folder of pictures for each of eight cameras: those of one make the video."""
    count = write_video(tmp_path / "hand.mp4", num_frames=2)
    assert len(list(open_video(tmp_path / "hand.mp4")[1])) == count == 2
    assert np.load(tmp_path / "hand_K.npy").shape == (3, 3)


def test_the_hand_is_followed(clip: tuple[Path, np.ndarray, list[float]], tmp_path: Path) -> None:
    path, (head, *frames) = demo(clip[0], tmp_path, clip[2])
    info, shown = open_video(path)
    assert (info.width, info.height) == (256, 232) and info.fps == pytest.approx(12)
    drawn = np.stack([frame.image for frame in shown])
    assert len(drawn) == len(frames) == FRAMES and head["fps"] == pytest.approx(12)
    assert [frame["status"] for frame in frames] == ["ok"] * FRAMES
    assert [frame["warm_start"] for frame in frames] == [False] + [True] * (FRAMES - 1)
    assert frames[0]["box"]["source"] == "--bbox" and frames[1]["box"]["source"] == "followed"
    assert all(frame["camera"]["source"] == "hand_K.npy" for frame in frames)
    keypoints = np.array([frame["keypoints_2d"] for frame in frames])
    moved = np.median(keypoints[-1] - keypoints[0], axis=0)
    assert np.abs(moved - [SHIFT * (FRAMES - 1), 0]).max() < 5
    changed = np.abs(drawn[:, :231, :255].astype(int) - clip[1]).max(axis=(0, 3)) > 60
    assert changed[:150].any() and changed[170:].any()  # the mesh, and the numbers


def test_without_a_hand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with VideoWriter(tmp_path / "empty.mp4", VideoInfo(160, 120, 25.0, 0)) as writer:
        for _ in range(4):
            writer.write(np.full((120, 160, 3), 90, np.uint8))
    path, (_, *frames) = demo(tmp_path / "empty.mp4", tmp_path / "out")
    assert count(path) == 4 and [frame["status"] for frame in frames] == ["no usable hand"] * 4
    assert "no usable hand in any of 4 frames" in caplog.text


def test_a_video_that_ends_early(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    generator = np.random.default_rng(0)
    whole = cv2.VideoWriter(str(tmp_path / "whole.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (96, 64))
    for _ in range(20):
        whole.write(generator.integers(0, 255, (64, 96, 3), dtype=np.uint8))
    whole.release()
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "torn.avi").write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING):
        path, (_, *frames) = demo(tmp_path / "torn.avi", tmp_path / "out")
    assert 5 < count(path) == len(frames) < 15
    assert " of the 20 frames that it announces" in caplog.text


def test_an_interruption_leaves_a_video(
    clip: tuple[Path, np.ndarray, list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate = module.annotate

    def stop_at_third(frame: np.ndarray, hands: object, lines: list[str]) -> np.ndarray:
        if "frame 3" in lines[-1]:
            raise KeyboardInterrupt
        return annotate(frame, hands, lines)

    monkeypatch.setattr(module, "annotate", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        demo(clip[0], tmp_path, clip[2])
    assert count(tmp_path / "hand_annotated.mp4") == 2
    assert len((tmp_path / "hand_frames.jsonl").read_text().splitlines()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hand_annotated.mp4", "hand_frames.jsonl"]


def test_files_that_are_no_videos(tmp_path: Path, clip: tuple[Path, np.ndarray, list[float]]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ValueError, match="text.mp4"):
        demo(tmp_path / "text.mp4", tmp_path)
    with pytest.raises(FileNotFoundError, match="missing.mp4"):
        demo(tmp_path / "missing.mp4", tmp_path)
    with pytest.raises(OSError, match="taken.*cannot be written"):
        demo(clip[0], tmp_path / "taken")
    with VideoWriter(tmp_path / "tiny.mp4", VideoInfo(16, 16, 25.0, 0)) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="too few"):
        demo(tmp_path / "tiny.mp4", tmp_path)
