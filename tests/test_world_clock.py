"""Training by the clock: what is used up, the learning rate that follows it, and the weights' running average."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from src.engine.checkpoint import save_checkpoint
from src.engine.world import train
from src.engine.world.train import Clock, learning_rate, make_card, update_average


def test_the_learning_rate_rises_and_falls_without_a_jump() -> None:
    shares = np.linspace(0, 1, 20001)
    rates = np.array([learning_rate(share, 2e-3) for share in shares])
    top = int(rates.argmax())
    assert rates[top] == pytest.approx(2e-3, rel=1e-3) and shares[top] == pytest.approx(0.03, abs=1e-3)
    assert (np.diff(rates[: top + 1]) >= 0).all() and (np.diff(rates[top:]) <= 0).all()
    assert np.abs(np.diff(rates)).max() < 5e-6  # no step where warm-up and cosine meet
    assert 0 < rates[0] < 1e-4 and rates[-1] == pytest.approx(2e-5)
    middle = learning_rate(0.03 + 0.97 / 2, 1.0)
    assert middle == pytest.approx((1 + 0.01) / 2)  # half a cosine is symmetric


def test_the_clock_goes_on_where_the_last_call_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    clock = Clock(minutes=2.0, used=30.0, steps=7, max_steps=None, stop_after=None)
    assert clock.used == 30.0 and clock.share == 0.25 and not clock.stops
    now[0] += 60
    assert clock.used == 90.0 and clock.share == 0.75 and not clock.stops
    now[0] += 1000
    assert clock.share == 1.0 and clock.stops


def test_a_call_may_end_before_the_budget_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    clock = Clock(minutes=10.0, used=0.0, steps=0, max_steps=None, stop_after=1.0)
    now[0] = 59.0
    assert not clock.stops
    now[0] = 61.0
    assert clock.stops and clock.share < 1  # it goes on with the next call


def test_steps_instead_of_minutes() -> None:
    clock = Clock(minutes=1e-9, used=1e9, steps=3, max_steps=4, stop_after=None)
    assert clock.share == 0.75 and not clock.stops
    clock.steps += 1
    assert clock.stops


def test_the_running_average_against_a_slow_loop() -> None:
    torch.manual_seed(0)
    model, average = (torch.nn.BatchNorm1d(3) for _ in range(2))
    average.load_state_dict(model.state_dict())
    expected = model.weight.detach().double().clone()
    for steps in range(1, 40):
        with torch.no_grad():
            model.weight.normal_()
            model.running_mean.normal_()
        update_average(average, model, steps)
        decay = min(0.999, (1 + steps) / (20 + steps))
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
        torch.testing.assert_close(average.running_mean, model.running_mean)  # statistics are taken over
    torch.testing.assert_close(average.weight.double(), expected, atol=1e-6, rtol=1e-5)
    assert math.isclose(min(0.999, (1 + 10**6) / (20 + 10**6)), 0.999)


def test_cards_name_the_network_and_the_hand() -> None:
    detector, keypoints = (
        make_card("detector", "mobilenet_v3_small", 256),
        make_card("keypoints", "regnet_x_400mf", 128),
    )
    assert (detector.model, detector.crop_scale, detector.hand_hash) == ("hand_detector", 1.0, "")
    assert keypoints.model == "pose_2d" and keypoints.options["rated"] and len(keypoints.hand_hash) == 12


def test_another_network_does_not_go_on_from_a_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parse = train.get_args_parser().parse_args
    words = ["--task", "keypoints", "--bank", str(tmp_path), "--out", str(tmp_path), "--device", "cpu"]
    card = make_card("keypoints", "mobilenet_v3_small", 128)
    model = card.build()
    save_checkpoint(tmp_path / "keypoints.pt", card, model, average=model.state_dict(), optimizer={}, used=0.0, steps=2)
    with pytest.raises(ValueError, match="input_size was 128, is 96"):
        train.main(parse([*words, "--backbone", "mobilenet_v3_small", "--size", "96"]))
    states = {"average": model.state_dict(), "optimizer": {}, "used": 0.0, "steps": 2, "init_from": "a.pt"}
    save_checkpoint(tmp_path / "keypoints.pt", card, model, **states)
    with pytest.raises(ValueError, match="began from a.pt, not from b.pt"):
        train.main(parse([*words, "--backbone", "mobilenet_v3_small", "--size", "128", "--init_from", "b.pt"]))
    parameters = [[one for one in model.parameters() if (one.ndim > 1) is matrix] for matrix in (True, False)]
    optimizer = torch.optim.AdamW([{"params": some} for some in parameters]).state_dict()
    states |= {"optimizer": optimizer, "init_from": None, "settings": {"lr": 0.5, "left": 0.2}}
    save_checkpoint(tmp_path / "keypoints.pt", card, model, **states)
    with pytest.raises(FileNotFoundError, match="no whole shard"):
        train.main(
            parse(
                [
                    *words,
                    "--backbone",
                    "mobilenet_v3_small",
                    "--size",
                    "128",
                    "--wait_minutes",
                    "0",
                    "--max_cutouts",
                    "600",
                ]
            )
        )
    assert "--lr was 0.5, goes on with 0.002" in caplog.text and "--left" not in caplog.text
    with pytest.raises(ValueError, match="--left is of --task keypoints"):
        train.main(parse(["--task", "detector", *words[2:], "--left", "0.9"]))
