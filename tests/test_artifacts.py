"""Predictions and identity files: round trip, refusal of everything else, nothing half written."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from src.photos.result import Result
from template import load_hand_assets
from utils.artifacts import (
    ArtifactError,
    HandMismatchError,
    Identity,
    Predictions,
    load_identity,
    load_predictions,
    model_hash,
    save_identity,
    save_predictions,
)


def make_predictions(n: int = 4, **changes: Any) -> Predictions:
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        "image_id": np.arange(n) * 3,
        "subject_id": np.full(n, 8),
        "sequence_id": np.arange(n) // 2,
        "is_left": np.arange(n) % 2 == 1,
        "K": np.tile(np.diag([600.0, 600.0, 1.0]), (n, 1, 1)),
        "pose": np.tile(np.eye(3), (n, 16, 1, 1)),
        "betas": rng.normal(size=(n, 10)),
        "confidence": rng.normal(size=n),
        "keypoints_2d": rng.uniform(0, 640, (n, 21, 2)),
        "keypoint_confidence": rng.uniform(size=(n, 21)),
        "model_name": "mano_baseline",
        "model_hash": "0123456789ab",
        "hand_name": "stand-in",
        "hand_hash": "cafe",
        "dataset": "dex_ycb",
        "split": "s1_test",
    }
    return Predictions(**(values | changes))


def make_identity(**changes: Any) -> Identity:
    root = np.random.default_rng(1).normal(size=(10, 10))
    values: dict[str, Any] = {
        "betas": np.linspace(-1, 1, 10),
        "hand_name": "stand-in",
        "hand_hash": "cafe",
        "hand_length_mm": 187.25,
        "hand_length_std_mm": 2.5,
        "covariance": root @ root.T,
        "method": "mean",
        "n_images": 3,
        "image_ids": [3, 1, 2],
        "subject_id": 8,
        "created_by": "a command",
    }
    return Identity(**(values | changes))


def test_predictions_round_trip(tmp_path: Path) -> None:
    original = make_predictions(transl=None)
    save_predictions(tmp_path / "deep" / "p.npz", original)
    loaded = load_predictions(tmp_path / "deep" / "p.npz")
    assert loaded.transl is None
    for name in ("image_id", "is_left", "K", "pose", "betas", "confidence", "keypoints_2d", "keypoint_confidence"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(original, name))
    assert loaded.image_id.dtype == np.int64 and loaded.pose.dtype == np.float32
    assert (loaded.model_name, loaded.model_hash, loaded.split) == ("mano_baseline", "0123456789ab", "s1_test")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["p.npz"]


def test_the_file_holds_no_objects(tmp_path: Path) -> None:
    save_predictions(tmp_path / "p.npz", make_predictions())
    with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "biufU" for name in archive.files)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": np.zeros((4, 9))}, r"betas has shape \(4, 9\)"),
        ({"pose": np.zeros((3, 16, 3, 3))}, "pose has shape"),
        (
            {"pose": np.tile(2 * np.eye(3), (4, 16, 1, 1))},
            r"pose of image \d+ is not made of rotation matrices \(4 of 4",
        ),
        ({"pose": np.tile(np.diag([1.0, 1, -1]), (4, 16, 1, 1))}, "is not made of rotation matrices"),
        ({"betas": np.where(np.eye(4, 10) > 0, np.nan, 0)}, r"betas\[0, 0\] is nan"),
        ({"image_id": np.array([0, 1, 1, 2])}, "image_id 1 occurs more than once"),
        ({"image_id": np.array([0.0, 1.0, 2.0, 3.0])}, "image_id has dtype float64"),
        ({"is_left": np.zeros(4)}, "is_left has dtype"),
        ({"keypoint_confidence": np.full((4, 21), 1.5)}, "keypoint_confidence spans"),
    ],
)
def test_bad_predictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        make_predictions(**changes)


def test_bad_prediction_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(FileNotFoundError, match="p.npz"):
        load_predictions(path)
    save_predictions(path, make_predictions())
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"\x80\x04N."):
        path.write_bytes(broken)
        with pytest.raises(ArtifactError, match="p.npz"):
            load_predictions(path)
    with path.open("wb") as handle:
        np.save(handle, np.zeros(3))
    with pytest.raises(ArtifactError, match="p.npz"):
        load_predictions(path)
    np.savez(path, schema=np.array(99))
    with pytest.raises(ArtifactError, match="schema is 99"):
        load_predictions(path)
    np.savez(path, schema=np.array(1), image_id=np.arange(2))
    with pytest.raises(ArtifactError, match="subject_id"):
        load_predictions(path)
    np.savez(path, schema=np.array(1), image_id=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ArtifactError, match="p.npz"):
        load_predictions(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.npz"
    save_predictions(path, make_predictions())
    before = path.read_bytes()

    def fail(handle: Any, **arrays: np.ndarray) -> None:
        handle.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        save_predictions(path, make_predictions(2))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_select_keeps_rows_together() -> None:
    predictions = make_predictions()
    chosen = predictions.select(np.array([2, 0]))
    assert chosen.image_id.tolist() == [6, 0] and len(chosen) == 2 and chosen.transl is None
    np.testing.assert_array_equal(chosen.betas, predictions.betas[[2, 0]])


def test_identity_round_trip_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "me.json"
    original = make_identity()
    save_identity(path, original)
    loaded = load_identity(path, side="right")
    np.testing.assert_allclose(loaded.betas, original.betas, atol=1e-6)
    np.testing.assert_allclose(loaded.covariance, original.covariance)
    assert loaded.image_ids == [3, 1, 2] and loaded.hand_length_std_mm == 2.5 and loaded.subject_id == 8
    content = json.loads(path.read_text())
    assert content["hand_model"] == {"name": "stand-in", "hash": "cafe"}
    assert {"schema", "betas", "covariance", "side", "method", "n_images", "scale_evidence"} <= set(content)


def test_they_are_shown_in_one_line() -> None:
    assert repr(make_identity(n_images=0)).startswith(
        "Identity(betas=<float64 (10,)>, hand_name='stand-in', hand_hash='cafe', "
    )
    text = repr(make_predictions())
    assert "pose=<float32 (4, 16, 3, 3)>" in text and "transl" not in text and "\n" not in text
    hand = load_hand_assets()
    assert "side='right', name='stand-in'" in repr(hand) and len(repr(hand)) < 400
    zero = np.zeros
    points = {"keypoints": zero((21, 2)), "confidence": zero(21), "vertices": zero((778, 3)), "joints": zero((21, 3))}
    shown = Result(640, np.eye(3), zero(3), **points, assets=hand, reprojection_px=1.0)
    assert "'stand-in, right hand'" in repr(shown) and "'stand-in, left hand'" in repr(shown.mirrored())


def test_identity_of_another_hand_is_refused(tmp_path: Path) -> None:
    save_identity(tmp_path / "me.json", make_identity(covariance=None, hand_length_std_mm=None))
    identity = load_identity(tmp_path / "me.json")
    assert identity.covariance is None and identity.hand_length_std_mm is None
    identity.check_hand(SimpleNamespace(name="stand-in", hash="cafe"))
    with pytest.raises(HandMismatchError, match=r"me\.json.*stand-in.*cafe.*MANO.*beef"):
        identity.check_hand(SimpleNamespace(name="MANO", hash="beef"))
    with pytest.raises(HandMismatchError):
        make_predictions().check_hand(SimpleNamespace(name="MANO", hash="beef"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"schema": 2}, "schema is 2"),
        ({"betas": [0.0] * 9}, "betas has shape"),
        ({"side": "up"}, "side is 'up'"),
        ({"hand_length_mm": 0.187}, "millimetres"),
        ({"covariance": (-np.eye(10)).tolist()}, "negative eigenvalue"),
        ({"covariance": np.triu(np.ones((10, 10))).tolist()}, "not symmetric"),
        ({"hand_model": "MANO"}, "hand_model"),
        ({"colour": "green"}, "colour"),
        ({"n_images": "many"}, "n_images"),
        ({"n_images": -3}, "n_images"),
        ({"n_images": 2.7}, "n_images"),
        ({"n_images": True}, "n_images"),
        ({"image_ids": "abc"}, "image_ids"),
        ({"image_ids": None}, "image_ids"),
        ({"image_ids": [1.5, "x"]}, "image_ids"),
        ({"subject_id": "me"}, "subject_id"),
        ({"method": 3}, "method"),
        ({"scale_evidence": None}, "scale_evidence"),
        ({"created_by": {}}, "created_by"),
        ({"hand_model": {"name": 1, "hash": 2}}, "hand_name"),
        ({"hand_length_std_mm": -4.0}, "hand_length_std_mm"),
    ],
)
def test_bad_identities_are_refused(tmp_path: Path, edit: dict[str, Any], message: str) -> None:
    path = tmp_path / "me.json"
    save_identity(path, make_identity())
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(ArtifactError, match=rf"(?s)me\.json.*{message}"):
        load_identity(path)


def test_identity_of_the_other_side_is_refused(tmp_path: Path) -> None:
    save_identity(tmp_path / "left.json", make_identity(side="left"))
    with pytest.raises(ArtifactError, match="a right hand is asked for"):
        load_identity(tmp_path / "left.json", side="right")
    save_identity(tmp_path / "both.json", make_identity(side="both"))
    assert load_identity(tmp_path / "both.json", side="right").side == "both"


def test_model_hash_sees_every_change() -> None:
    torch.manual_seed(0)
    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict()
    reference = model_hash(state)
    assert len(reference) == 12 and reference == model_hash(dict(reversed(list(state.items()))))
    changed = {name: tensor.clone() for name, tensor in state.items()}
    changed["0.weight"][0, 0] += 1e-6
    renamed = {name.replace("0.", "2."): tensor for name, tensor in state.items()}
    half = {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}
    assert len({reference, model_hash(changed), model_hash(renamed), model_hash(half)}) == 4
