"""The training benchmarks measure what they say, on sizes too small to say anything about speed."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks import latency, step_cost, train_throughput
from benchmarks.latency import Tracker, Video, longest_stretch, run_video
from benchmarks.latency_engines import TorchEngine, make_engines
from benchmarks.machine import describe_machine, median_and_p95
from src.engine.checkpoint import ModelCard
from template import HandModel, load_hand_assets
from tests.dex_ycb_layout import write_dex_ycb
from utils.camera import project_numpy

FRAMES = 5
K = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    """A bright square, moving 8 px a frame to the right where the labels' hand is."""
    path = tmp_path_factory.mktemp("video") / "hand.mp4"
    rng = np.random.default_rng(0)
    hand = rng.uniform(-0.05, 0.05, (21, 3)) + [-0.2, 0, 0.8]
    joints = np.stack([hand + [0.8 * 8 / 600 * frame, 0, 0] for frame in range(FRAMES)])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (640, 480))
    for points in joints:
        image = np.zeros((480, 640, 3), np.uint8)
        u, v = project_numpy(points, K).mean(0).astype(int)
        image[v - 20 : v + 20, u - 20 : u + 20] = 255
        writer.write(image)
    writer.release()
    return Video(path, K, np.zeros((1, 10), np.float32), joints)


class Centroid:
    """An engine that finds the square and puts all keypoints around it as the first label had them."""

    def __init__(self, video: Video) -> None:
        first = project_numpy(video.joints[0], video.K)
        self.around, self.seen = first - first.mean(0), []

    def network_outputs(self, image: np.ndarray, K: np.ndarray) -> dict[str, np.ndarray]:
        assert image.shape == (1, 3, 96, 96) and -1 <= image.min() < 0 < image.max() <= 1
        v, u = np.argwhere(image[0, 0] > 0).mean(0)
        self.seen.append((u, v))
        scale = K[0, 0, 0] / 600  # of the crop over the image
        return {"keypoints_2d": (np.array([u, v]) + scale * self.around)[None], "joints": np.zeros((1, 21, 3))}

    def layer_outputs(self, output: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return output


def test_tracker_follows_the_keypoints_of_the_frame_before(video: Video) -> None:
    engine = Centroid(video)
    ticks = itertools.count()
    tracker = Tracker(engine, video, 96, 1.5, clock=lambda: float(next(ticks)))
    times, errors = run_video(tracker)
    assert errors["keypoints_px"] < 2
    steps = np.diff([u for u, _ in engine.seen])
    assert np.abs(steps[1:]).max() < 2  # after the first step the square stands still in the crop: it is followed
    assert engine.seen[1][0] - engine.seen[0][0] > 2  # but lags by a frame's motion
    assert set(times) == {"decode", "crop", "network", "layer", "frame"} and len(times["frame"]) == FRAMES
    total = sum(np.array(times[name]) for name in ("decode", "crop", "network", "layer"))
    assert np.allclose(total, times["frame"])
    assert run_video(Tracker(Centroid(video), video, 96, 1.5), label_crops=True)[1]["keypoints_px"] < 2


def test_engines_agree_and_a_missing_one_is_named(video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    card = ModelCard("mano_identity", "fair", {"backbone": "resnet18"}, 64)
    network, hand = card.build().eval(), HandModel(load_hand_assets("template/stand_in.npz"))
    monkeypatch.setattr(torch, "compile", lambda model: (_ for _ in ()).throw(RuntimeError("no compiler")))
    names = ["torch_fp32", "torch_bf16_channels_last", "torch_compile"]
    engines, missing = make_engines(names, network, card, hand, video.betas)
    assert list(engines) == names[:2] and missing == {"torch_compile": "RuntimeError: no compiler"}
    image = np.random.default_rng(1).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    crop_K = np.array([[[200, 0, 32], [0, 200, 32], [0, 0, 1]]], np.float32)
    found = [engine.layer_outputs(engine.network_outputs(image, crop_K)) for engine in engines.values()]
    assert np.abs(found[0]["vertices"] - found[1]["vertices"]).max() < 5e-3
    with torch.no_grad():
        expected = network(torch.from_numpy(image), betas=torch.zeros(1, 10), K=torch.from_numpy(crop_K))["pose"]
    assert np.abs(found[0]["pose"] - expected.numpy()).max() < 1e-5
    assert TorchEngine(network, hand, video.betas).network.training is False


def test_longest_stretch_stays_in_one_camera() -> None:
    ids = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 20, 21, 22, 23])  # ten frames a camera
    assert ids[longest_stretch(ids, 10)].tolist() == [4, 5, 6, 7, 8, 9]
    assert ids[longest_stretch(ids, 8)].tolist() == [4, 5, 6, 7]  # the first of two


def test_shares_of_a_measurement() -> None:
    assert median_and_p95([1.0, 2.0, 3.0]) == {"median_ms": 2.0, "p95_ms": 2.9}
    assert "threads, torch" in describe_machine()


def test_throughput_ratios() -> None:
    rates = {"model_fast": 100.0, "model_released": 50.0}
    rates |= {"loader_cache": 1e6, "both_cache": 95.0, "loader_jpeg": 100.0, "both_jpeg": 50.0}
    found = train_throughput.ratios(rates)
    assert found["fast_over_released"] == 2.0 and found["both_over_slower_cache"] == 0.95
    assert found["both_over_slower_jpeg"] == 0.5 and found["both_over_serial_jpeg"] == 1.0


def test_throughput_runs_the_trainers_own_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_dex_ycb(tmp_path / "dex_ycb", sequences=1)
    words = ["--data_root", str(root), "--recipes", "paper", "--batches", "2", "--repeats", "1", "--num_workers", "0"]
    words += ["--threads", "1", "--device", "cpu", "--options", "--batch_size", "2", "--input_size", "64"]
    taken: list[str] = []
    original = train_throughput.Trainer._step

    def step(trainer: object, raw: dict[str, torch.Tensor]) -> dict[str, float]:
        taken.append(trainer.args.amp)
        assert len(raw["image"]) == 2
        return original(trainer, raw)

    monkeypatch.setattr(train_throughput.Trainer, "_step", step)
    result = train_throughput.measure(train_throughput.get_args_parser().parse_args(words))
    # Two measured batches and one to begin with: of the model in both precisions, and of both loaders with the model.
    assert sorted(taken) == ["bf16"] * 9 + ["no"] * 3
    row = result["rows"][0]
    names = {"model_fast", "model_released", "loader_cache", "both_cache", "loader_jpeg", "both_jpeg"}
    assert set(row["images_per_second"]) == names and all(rate > 0 for rate in row["images_per_second"].values())
    assert result["ratios"] == row["ratios"] and (row["backbone"], row["batch_size"]) == ("resnet18", 2)


def test_step_cost_takes_turns_and_measures_each_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_dex_ycb(tmp_path / "dex_ycb", sequences=1)
    words = ["--models", "cmr_pg", "metro", "--backbone", "mobilenet_v3_small", "--data_root", str(root)]
    words += ["--batch_size", "4", "--repeats", "2", "--threads", "1", "--device", "cpu"]
    taken: list[str] = []
    original = step_cost.Trainer._step

    def step(trainer: object, raw: dict[str, torch.Tensor]) -> dict[str, float]:
        taken.append(trainer.args.model)
        return original(trainer, raw)

    monkeypatch.setattr(step_cost.Trainer, "_step", step)
    args = step_cost.get_args_parser().parse_args(words)
    times = step_cost.measure_times(root, args)
    assert taken == ["cmr_pg", "metro"] * 3 and all(0 < ms < 1e5 for ms in times.values())
    monkeypatch.setattr(step_cost, "measure_times", lambda *_: {"cmr_pg": 100.0, "metro": 150.0})
    monkeypatch.setattr(step_cost, "memory_apart", lambda model, *_: {"cmr_pg": 20.0, "metro": 50.0}[model])
    rows = step_cost.measure(args)["rows"]
    assert [row["time_over_cmr_pg"] for row in rows] == [1.0, 1.5]
    assert [row["memory_over_cmr_pg"] for row in rows] == [1.0, 2.5] and rows[1]["images_per_second"] == 26.7


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts the peak")
def test_peak_growth_is_what_is_touched() -> None:
    """In a process of its own, which holds nothing that was freed before."""
    code = "import numpy as np; from benchmarks.machine import peak_growth; "
    code += "print(peak_growth(lambda: np.ones(100 * 2**20 // 8).sum()))"  # more than malloc keeps
    root = Path(__file__).resolve().parents[1]
    found = float(
        subprocess.check_output([sys.executable, "-c", code], cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
    )
    assert 90 < found < 120


def test_command_lines() -> None:
    assert latency.get_args_parser().parse_args(["--json"]).engines == list(latency.NAMES)
    args = train_throughput.get_args_parser().parse_args(["--json", "--options", "--backbone", "resnet50"])
    assert args.options == ["--backbone", "resnet50"] and args.recipes == ["paper", "fair"]
