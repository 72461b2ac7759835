"""Left hands whose model is not the right one's mirror image, as MANO_LEFT's is not; fingertips by side."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from dex_ycb_layout import Hands, write_dex_ycb
from random_assets import mano_dictionary
from scipy.optimize import least_squares

from datasets import build_dataset
from datasets.sample import check_sample
from options.run_options import get_args_parser
from src.engine.evaluate import evaluate
from src.engine.measure import hand_points, measure, official_hand, predicted_points, true_points
from src.evaluation.official import dexycb_scores
from src.evaluation.submissions import unmirror
from src.personalization.pairing import annotations_of
from template import HandModel, load_hand_assets, pca_to_pose
from template.sides import LeftHandShape
from utils.artifacts import Predictions, save_predictions

STAND_IN = "template/stand_in.npz"
MIRROR = np.array([-1.0, 1.0, 1.0])
ROWS = ("image_id", "subject_id", "sequence_id", "is_left", "pose", "betas", "transl")
SMALL = {"side": "both", "allow_missing_subjects": True}


@pytest.fixture(scope="module")
def mano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in as MANO's two files, with MANO_LEFT's fault: x of its shape directions as the right's."""
    folder = tmp_path_factory.mktemp("mano")
    right, left = (load_hand_assets(STAND_IN, side) for side in ("right", "left"))
    left = dataclasses.replace(left, shapedirs=left.shapedirs * MIRROR[:, None])
    for hand in (right, left):
        np.savez(folder / f"MANO_{hand.side.upper()}.npz", **mano_dictionary(hand))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, mano: Path) -> Path:
    return write_dex_ycb(tmp_path_factory.mktemp("data"), subjects=(8,), sequences=2, mano_dir=mano)


def perfect(dataset: object, name: str, digest: str) -> Predictions:
    columns = dataset.columns
    return Predictions(
        **{key: columns[key] for key in ROWS}, K=columns["K_image"], hand_name=name, hand_hash=digest,
        dataset="dex_ycb", split=dataset.split, model_name="truth",
    )  # fmt: skip


def test_betas_become_those_of_the_closest_right_hand(mano: Path) -> None:
    right, left = (load_hand_assets(mano, side) for side in ("right", "left"))
    models = [HandModel(hand, dtype=torch.float64) for hand in (right, left)]
    betas = np.random.default_rng(0).normal(0, 1, (3, 10))
    shape = LeftHandShape(left, right)
    found, residual = shape.to_right(betas)
    assert not shape.is_mirror

    def rest(model: HandModel, values: np.ndarray) -> np.ndarray:
        values = torch.as_tensor(values)[None]
        return (model.rest(values)[0] - model.rest_joints(values)[0, 0]).numpy()

    for row in range(3):
        target = rest(models[1], betas[row]) * MIRROR
        best = least_squares(lambda values, goal=target: (rest(models[0], values) - goal).ravel(), np.zeros(10))
        np.testing.assert_allclose(found[row], best.x, atol=1e-4)
        missed = np.linalg.norm(rest(models[0], found[row]) - target, axis=1).mean()
        as_told = np.linalg.norm(rest(models[0], betas[row]) - target, axis=1).mean()
        assert residual[row] == pytest.approx(missed, abs=1e-12) and missed < 0.8 * as_told


def test_the_mirror_image_keeps_its_betas_to_the_bit(mano: Path) -> None:
    right, left = (load_hand_assets(STAND_IN, side) for side in ("right", "left"))
    betas = np.random.default_rng(0).normal(0, 1, (3, 10))
    repaired = load_hand_assets(mano, "left", fix_left_shapedirs=True)
    for hand in (left, repaired):
        found, residual = LeftHandShape(hand, right).to_right(betas)
        np.testing.assert_array_equal(found, betas)
        assert not residual.any()


def test_left_samples_of_such_a_model_keep_their_labels_geometry(root: Path, mano: Path) -> None:
    hands = Hands(mano)
    dataset = build_dataset("dex_ycb", root, "s1_test", mano_dir=mano, with_vertices=True, **SMALL)
    batch = dataset.gather(np.arange(len(dataset)))
    left = np.flatnonzero(batch["is_left"])
    assert len(left) and len(left) < len(dataset)
    check_sample(dataset[int(left[0])])
    for index in left[:3]:
        with np.load(str(dataset.image_path(index)).replace("color", "labels").replace("jpg", "npz")) as labels:
            pose_m, joints = torch.from_numpy(labels["pose_m"].astype(np.float64)), labels["joint_3d"][0]
        pose = pca_to_pose(hands.assets["left"], pose_m[:, :3], pose_m[:, 3:48])
        own = torch.from_numpy(batch["label_betas"][[index]].astype(np.float64))
        expected = hands.models["left"](pose, own, pose_m[:, 48:]).vertices[0].numpy() * MIRROR
        np.testing.assert_allclose(batch["vertices"][index], expected, atol=2e-6)
        np.testing.assert_allclose(batch["joints"][index], joints * MIRROR, atol=1e-7)
    layer = HandModel(load_hand_assets(mano, "right"))
    converted, told = (
        hand_points(layer, batch["pose"], batch[key], batch["transl"])[1] for key in ("betas", "label_betas")
    )
    errors = [np.linalg.norm(found - batch["vertices"], axis=-1).mean(axis=1) for found in (converted, told)]
    assert errors[0][left].max() < 0.6 * errors[1][left].min()
    right = np.flatnonzero(~batch["is_left"])
    assert errors[0][right].max() < 1e-6
    np.testing.assert_array_equal(batch["betas"][right], batch["label_betas"][right])
    assert set(dataset.betas_by_hand) == {(8, "right"), (8, "left")}
    np.testing.assert_array_equal(dataset.subject_betas[8], batch["label_betas"][0])
    assert np.abs(dataset.betas_by_hand[8, "left"] - dataset.subject_betas[8]).max() > 0.1


def test_the_truth_of_an_evaluation_is_the_labels(root: Path, mano: Path, tmp_path: Path) -> None:
    dataset = build_dataset("dex_ycb", root, "s1_test", mano_dir=mano, **SMALL)
    assets = load_hand_assets(mano, "right")
    shown = perfect(dataset, assets.name, assets.hash)
    truth = annotations_of(dataset, shown)
    joints, vertices = true_points(HandModel(assets), truth, shown.is_left, dataset.assets["left"])
    np.testing.assert_allclose(joints, dataset.columns["joints"], atol=2e-6)
    with pytest.raises(ValueError, match="left=dataset.assets"):
        true_points(HandModel(assets), truth, shown.is_left)
    # What is not the labels' is the residual of the conversion, and the table and the evaluator agree on it.
    table = measure(shown, truth, assets, torch.device("cpu"), left=dataset.assets["left"])
    save_predictions(tmp_path / "p.npz", shown)
    (root / "synthetic.json").write_text("{}")  # so that its image ids are official, as they are
    words = ["--phase", "eval", "--dataset", "dex_ycb", "--data_root", str(root), "--submit", "dexycb"]
    words += ["--predictions", str(tmp_path / "p.npz"), "--mano_dir", str(mano)]
    words += ["--allow_missing_subjects", "--out_dir", str(tmp_path)]
    summary = evaluate(get_args_parser().parse_args([*words, "--device", "cpu"]))
    official = summary["official"]["root-relative"]["mpjpe_mm"]
    assert summary["mpjpe_mm"] == pytest.approx(table["mpjpe_mm"], abs=1e-4) == pytest.approx(official, abs=1e-4)
    assert 0.1 < table["zero_pose_mpvpe_mm"]


@pytest.mark.parametrize("meshes", [False, True])
def test_table_and_evaluator_agree_on_tips_by_side(tmp_path: Path, meshes: bool) -> None:
    dataset = build_dataset("dex_ycb", write_dex_ycb(tmp_path, subjects=(8,)), "s1_test", mano_dir=STAND_IN, **SMALL)
    assets = load_hand_assets(STAND_IN)
    hand = official_hand(assets, "dex_ycb")
    for noise, most in ((0.0, 1e-3), (0.3, 100.0)):
        shown = perfect(dataset, assets.name, assets.hash)
        shown.betas = shown.betas + np.random.default_rng(0).normal(0, noise + 1e-12, shown.betas.shape).astype("f4")
        truth = annotations_of(dataset, shown)
        if meshes:  # the network's own joints have the right hand's tips
            layer = HandModel(assets, joint_type="regressed")
            joints, vertices = hand_points(layer, shown.pose, shown.betas, shown.transl)
            root = joints[:, 0]
            shown = dataclasses.replace(
                shown, pose=None, betas=None, transl=None, root=root, joints=joints - root[:, None],
                vertices=vertices - root[:, None],
            )  # fmt: skip
        points = predicted_points(shown, hand)
        labels = dataset.columns["joints"]
        official = dexycb_scores(unmirror(points.joints, shown.is_left), unmirror(labels, shown.is_left))
        table = measure(shown, truth, assets, torch.device("cpu"))
        assert table["mpjpe_mm"] < most
        if not meshes:  # regressed joints are not the official ones, but tips are
            assert official["root-relative"]["mpjpe_mm"] < most
            assert table["mpjpe_mm"] == pytest.approx(official["root-relative"]["mpjpe_mm"], abs=1e-4)
        elif not noise:
            np.testing.assert_allclose(points.joints[:, 12], labels[:, 12], atol=2e-6)


def test_labels_of_either_side_are_compared_with_their_own_model(
    tmp_path: Path, root: Path, mano: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of the hands hid it: one median over both sides was the right ones'."""
    repaired = tmp_path / "repaired"
    repaired.mkdir()
    for side in ("right", "left"):
        hand = load_hand_assets(mano, side, fix_left_shapedirs=side == "left")
        np.savez(repaired / f"MANO_{side.upper()}.npz", **mano_dictionary(hand))
    for folder, is_told in ((mano, False), (repaired, True)):
        caplog.clear()
        build_dataset("dex_ycb", root, "s1_test", mano_dir=folder, **SMALL)
        assert ("labelled joints of left hands lie" in caplog.text and "MANO_LEFT.pkl" in caplog.text) == is_told
        assert "labelled joints of right hands" not in caplog.text
