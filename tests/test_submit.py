"""run.py --phase predict, eval and --submit for networks that give meshes, and for owned checkpoints."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets import build_dataset, write_shards
from datasets.bad_files import BadFileError
from datasets.sample import check_sample
from datasets.synthetic.freihand_writer import write_freihand
from datasets.synthetic.ho3d_writer import write_ho3d
from options.run_options import get_args_parser
from src.engine.checkpoint import ModelCard, save_checkpoint
from src.engine.evaluate import evaluate
from src.engine.measure import camera_points, official_hand, predicted_points
from src.engine.predict import mesh_rows, predict
from src.evaluation.submission_checks import SubmissionError
from src.models import build_model
from src.models.mesh_joints import mesh_joints
from src.personalization.solver.status import Status
from src.personalization.terms.hand_size import lengths_mm
from template import load_hand_assets
from tests.dex_ycb_layout import write_dex_ycb
from utils.artifacts import ArtifactError, Identity, Predictions, load_predictions, save_identity, save_predictions
from utils.camera import crop_affine, project, project_numpy, transform_points

ROWS = ("image_id", "subject_id", "sequence_id", "is_left", "pose", "betas", "transl")
ASSETS = load_hand_assets("template/stand_in.npz")


@pytest.fixture(scope="module")
def freihand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("freihand")
    write_freihand(root, num_train=1, num_eval=3)
    return root


@pytest.fixture(scope="module")
def dex_ycb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person of every setup's test split; the unseen objects of s3 are in sequences 35 to 39."""
    root = write_dex_ycb(tmp_path_factory.mktemp("dex_ycb"), subjects=(8,), sequences=40)
    (root / "synthetic.json").write_text("{}")  # so that its image ids are official, as they are
    return root


def options(phase: str, dataset: str, root: Path, out: Path, *extra: str) -> SimpleNamespace:
    words = ["--phase", phase, "--dataset", dataset, "--data_root", str(root), "--device", "cpu"]
    names_run = phase == "predict" or "--submit" in extra or "--predictions" not in extra
    return get_args_parser().parse_args([*words, *(["--out_dir", str(out)] if names_run else []), *extra])


def true_meshes(dataset: object, name: str) -> Predictions:
    """Predictions without error, as a mesh network's."""
    columns = dataset.columns
    hand = official_hand(ASSETS, name)
    shown = Predictions(
        **{key: columns[key] for key in ROWS},
        K=columns["K_image"], hand_name=ASSETS.name, hand_hash=ASSETS.hash, dataset=name, split=dataset.split,
        model_name="truth",
    )  # fmt: skip
    points = predicted_points(shown, hand)
    root = points.joints[:, 0]
    return dataclasses.replace(
        shown, pose=None, betas=None, transl=None, root=root,
        joints=points.joints - root[:, None], vertices=points.vertices - root[:, None],
    )  # fmt: skip


def test_freihand_files_of_true_meshes_score_as_perfect(freihand: Path, tmp_path: Path) -> None:
    predictions = true_meshes(build_dataset("freihand", freihand, "s0_test"), "freihand")
    save_predictions(tmp_path / "p.npz", predictions)
    words = ("--exp_name", "run7", "--predictions", str(tmp_path / "p.npz"), "--submit", "freihand")
    summary = evaluate(options("eval", "freihand", freihand, tmp_path, *words))
    assert summary["official"]["xyz_mean3d"] < 1e-4 and summary["official"]["mesh_al_auc3d"] > 0.99
    assert summary["mpvpe_mm"] < 1e-3 and summary["abs_mpjpe_mm"] < 1e-3
    path = tmp_path / "FreiHAND/run7/run7.json"
    xyz = np.array(json.loads(path.read_text())[0])
    np.testing.assert_allclose(xyz, json.loads((freihand / "evaluation_xyz.json").read_text()), atol=1e-6)
    with zipfile.ZipFile(path.with_suffix(".zip")) as bundle:
        assert bundle.namelist() == ["pred.json"]
    evaluate(options("eval", "freihand", freihand, tmp_path, *words[2:]))  # without a name: its network's
    assert (tmp_path / "FreiHAND/truth/truth.json").read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="the server knows evaluation, s0_test, not split training"):
        evaluate(options("eval", "freihand", freihand, tmp_path, *words, "--split", "training"))
    again = evaluate(options("eval", "freihand", freihand, tmp_path, "--predictions", str(path.with_suffix(".zip"))))
    assert again["official"] == pytest.approx(summary["official"], abs=1e-6)


def test_disordered_and_misscaled_predictions_are_refused(freihand: Path, tmp_path: Path) -> None:
    predictions = true_meshes(build_dataset("freihand", freihand, "s0_test"), "freihand")
    millimetres = dataclasses.replace(
        predictions, **{key: getattr(predictions, key) * 1000 for key in ("joints", "vertices", "root")}
    )
    cases = [
        (predictions.select(np.array([0, 2, 1])), "row 1 is image 2"),
        (predictions.select(np.array([0, 1])), "2 predictions for 3 images"),
        (millimetres, "Wrong unit"),
        (dataclasses.replace(predictions, joints=None, vertices=None, root=None), "holds neither meshes nor pose"),
        (dataclasses.replace(predictions, root=None), "keypoints"),
        (dataclasses.replace(predictions, dataset="dex_ycb"), "is of dex_ycb, not of --dataset freihand"),
    ]
    for wrong, message in cases:
        save_predictions(tmp_path / "p.npz", wrong)
        words = ("--predictions", str(tmp_path / "p.npz"), "--submit", "freihand")
        with pytest.raises(ValueError, match=message):
            evaluate(options("eval", "freihand", freihand, tmp_path, *words))
    (tmp_path / "pred.json").write_text(json.dumps([[], []]))
    with pytest.raises(SubmissionError, match=r"\(3, 21, 3\)"):
        evaluate(options("eval", "freihand", freihand, tmp_path, "--predictions", str(tmp_path / "pred.json")))
    with pytest.raises(ValueError, match="needs --dataset dex_ycb"):
        evaluate(options("eval", "freihand", freihand, tmp_path, "--submit", "dexycb"))
    (tmp_path / "shards" / "s1_test").mkdir(parents=True)
    (tmp_path / "shards" / "s1_test" / "index.json").write_text("{}")
    with pytest.raises(ValueError, match="needs the data set itself, not shards of it"):  # which may be a part
        evaluate(options("eval", "dex_ycb", tmp_path / "shards", tmp_path, "--submit", "dexycb"))
    assert not list(tmp_path.glob("FreiHAND/*/*.json"))


@pytest.mark.parametrize("setup", ["s0", "s1", "s2", "s3"])
def test_dexycb_file_holds_both_sides_and_every_frame(dex_ycb: Path, tmp_path: Path, setup: str) -> None:
    known = {"side": "both", "include_invalid": True, "allow_missing_subjects": True}
    dataset = build_dataset("dex_ycb", dex_ycb, f"{setup}_test", **known)
    predictions = true_meshes(dataset, "dex_ycb")
    save_predictions(tmp_path / "p.npz", predictions)
    words = (
        "--allow_missing_subjects",
        "--setup",
        setup,
        "--predictions",
        str(tmp_path / "p.npz"),
        "--submit",
        "dexycb",
        "--exp_name",
        "e",
    )
    summary = evaluate(options("eval", "dex_ycb", dex_ycb, tmp_path, *words))
    assert summary["official"]["absolute"]["mpjpe_mm"] < 1e-3 and summary["official"]["root-relative"]["auc"] > 0.98
    lines = (tmp_path / f"dex_ycb/e/e_{setup}_test.txt").read_text().splitlines()
    assert len(lines) == len(dataset) and predictions.is_left.any() and not predictions.is_left.all()
    with pytest.raises(ValueError, match="the server knows s0_test, s1_test, s2_test, s3_test, not split s5_test"):
        evaluate(options("eval", "dex_ycb", dex_ycb, tmp_path, words[0], *words[3:], "--split", "s5_test"))
    (tmp_path / "real").mkdir()
    for path in dex_ycb.iterdir():
        if path.name != "synthetic.json":
            (tmp_path / "real" / path.name).symlink_to(path)
    result = ("--predictions", str(tmp_path / f"dex_ycb/e/e_{setup}_test.txt"))
    with pytest.raises(FileNotFoundError, match="s1_val"):  # whose people are not here; no server is asked
        evaluate(options("eval", "dex_ycb", dex_ycb, tmp_path, *words[:1], *result, "--split", "s1_val"))
    for given in (words, (*words[:3], *result)):  # where people or sequences lack, other images have these numbers
        with pytest.raises(ValueError, match="subject-08 has 40.* of its 100 sequences, so image ids of"):
            evaluate(options("eval", "dex_ycb", tmp_path / "real", tmp_path, *given))
    save_predictions(tmp_path / "p.npz", predictions.select(~predictions.is_left))
    with pytest.raises(SubmissionError, match="both hand sides"):
        evaluate(options("eval", "dex_ycb", dex_ycb, tmp_path, *words))


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_ho3d_file_of_the_true_meshes(tmp_path: Path, version: str) -> None:
    write_ho3d(tmp_path / "data", num_images=2, version=version)
    (tmp_path / "stopped" / "evaluation").mkdir(parents=True)  # as a writer leaves it that was stopped
    with pytest.raises(FileExistsError, match="evaluation: a data set, or part of one, is there"):
        write_ho3d(tmp_path / "stopped", num_images=2, version=version)
    dataset = build_dataset("ho3d", tmp_path / "data", "s0_test")
    assert dataset.version == version
    check_sample(dataset[1])
    joints, vertices = dataset.official_labels()
    assert (joints[..., 2] > 0).all()
    pixels = transform_points(project_numpy(joints, dataset.columns["K_image"]), crop_affine(dataset._boxes, 128))
    assert ((pixels > 20) & (pixels < 107)).all()  # the crop is twice the hand's box
    keys = {key: dataset.columns[key] for key in ROWS if key not in ("pose", "betas", "transl")}
    root = joints[:, 0]
    predictions = Predictions(
        **keys, K=dataset.columns["K_image"], hand_name=ASSETS.name, hand_hash=ASSETS.hash, dataset="ho3d",
        split="s0_test", root=root, joints=joints - root[:, None], vertices=vertices - root[:, None],
    )  # fmt: skip
    save_predictions(tmp_path / "p.npz", predictions)
    words = ("--predictions", str(tmp_path / "p.npz"), "--submit", "ho3d", "--exp_name", "e")
    scores = evaluate(options("eval", "ho3d", tmp_path / "data", tmp_path, *words))["official"]
    assert scores["xyz_mean3d"] < 1e-4 and scores["mesh_mean3d"] < 1e-4
    written = np.array(json.loads((tmp_path / "HO3D/e/e.json").read_text())[0])
    np.testing.assert_allclose(written, json.loads((tmp_path / "data/evaluation_xyz.json").read_text()), atol=1e-6)
    save_predictions(tmp_path / "p.npz", predictions.select(np.array([1, 0])))
    with pytest.raises(SubmissionError, match="row 0 is image SYN1/0001"):
        evaluate(options("eval", "ho3d", tmp_path / "data", tmp_path, *words))
    (tmp_path / "data/evaluation/SYN1/meta/0001.pkl").write_bytes(b"cos\nsystem\n.")
    with pytest.raises(BadFileError, match="0001.pkl"):
        build_dataset("ho3d", tmp_path / "data", "s0_test")


def test_owned_cmr_checkpoint_gives_freihand_files_without_labels(freihand: Path, tmp_path: Path) -> None:
    root = tmp_path / "unlabelled"
    root.mkdir()
    for name in ("evaluation", "evaluation_K.json", "evaluation_scale.json"):
        (root / name).symlink_to(freihand / name)
    folder = tmp_path / "FreiHAND/cmr_sg/checkpoints"
    folder.mkdir(parents=True)
    network = build_model("cmr_sg")
    with torch.no_grad():
        network.heads[3].layer.weight.mul_(2e-7)  # so that random weights make something of a hand's size
        network.heads[3].layer.bias.copy_(torch.tensor([0.1, 0.0, 0.0]))
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"model_state_dict": state, "epoch": 3}, folder / "cmr_sg_res18_freihand.pt")
    words = (
        "--model",
        "cmr_sg",
        "--resume",
        "cmr_sg_res18_freihand.pt",
        "--submit",
        "freihand",
        "--backbone",
        "ResNet18",
    )
    summary = evaluate(options("eval", "freihand", root, tmp_path, *words))
    assert summary["n_images"] == 3 and summary["official"] is None and "mpjpe_mm" not in summary
    content = json.loads((tmp_path / "FreiHAND/cmr_sg/cmr_sg.json").read_text())
    assert np.shape(content[0]) == (3, 21, 3) and np.shape(content[1]) == (3, 778, 3)
    with pytest.raises(FileNotFoundError, match="no such checkpoint; tried"):
        evaluate(options("eval", "freihand", root, tmp_path, "--model", "cmr_sg", "--resume", "other.pt"))
    predictions = true_meshes(build_dataset("freihand", freihand, "s0_test"), "freihand")
    save_predictions(tmp_path / "p.npz", predictions)
    words = ["--dataset", "freihand", "--data_root", str(root), "--output", str(tmp_path / "shards"), "--crop", "image"]
    write_shards.write(write_shards.get_args_parser().parse_args(words), "s0_test")
    for data in (root, tmp_path / "shards"):
        with pytest.raises(ValueError, match="not annotated.*--submit writes"):
            evaluate(options("eval", "freihand", data, tmp_path, "--predictions", str(tmp_path / "p.npz")))


def test_identity_network_is_told_true_mean_and_calibrated_shapes(dex_ycb: Path, tmp_path: Path) -> None:
    network = build_model("cmr_identity", backbone="mobilenet_v3_small")
    card = ModelCard("cmr_identity", "fair", {"backbone": "mobilenet_v3_small"}, 64, 64, 2.0, ASSETS.name, ASSETS.hash)
    save_checkpoint(tmp_path / "c.pt", card, network)
    betas = build_dataset("dex_ycb", dex_ycb, "s1_test", allow_missing_subjects=True).subject_betas
    for subject, value in betas.items():
        identity = Identity(
            value, ASSETS.name, ASSETS.hash, lengths_mm(ASSETS, value, None)["hand"][0], subject_id=subject
        )
        save_identity(tmp_path / f"ids/identity_subject-{subject:02d}.json", identity)
    ways = {"gt": [], "calibrated": ["--identities", str(tmp_path / "ids")], "mean": []}
    found = {}
    for kind, extra in ways.items():
        file = tmp_path / f"{kind}.npz"
        words = (
            "--checkpoint",
            str(tmp_path / "c.pt"),
            "--allow_missing_subjects",
            "--predictions",
            str(file),
            "--shape",
            kind,
            *extra,
        )
        predict(options("predict", "dex_ycb", dex_ycb, tmp_path, *words, "--max_images", "6"))
        found[kind] = load_predictions(file)
    np.testing.assert_allclose(found["gt"].vertices, found["calibrated"].vertices, atol=1e-6)
    assert np.abs(found["gt"].vertices - found["mean"].vertices).max() > 1e-4
    assert found["gt"].joint_definition == "regressed, tips manopth" and not found["gt"].joints[:, 0].any()
    words = ("--predictions", str(tmp_path / "gt.npz"), "--identity", str(tmp_path / "ids"), "--allow_missing_subjects")
    summary = evaluate(options("eval", "dex_ycb", dex_ycb, tmp_path, *words))
    keys = {"mpjpe_mm", "mpvpe_mm", "pa_mpjpe_mm", "pa_mpvpe_mm", "auc", "f5", "f15", "keypoints_px", "abs_mpjpe_mm"}
    assert keys <= set(summary) and summary["n_images"] == 6


def test_hands_that_could_not_be_placed_are_counted_and_impossible_ones_refused(
    freihand: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = true_meshes(build_dataset("freihand", freihand, "s0_test"), "freihand")
    status = np.array([Status.CONVERGED, Status.BEHIND_CAMERA, Status.ITERATION_LIMIT])
    words = ("--exp_name", "run8", "--predictions", str(tmp_path / "p.npz"), "--submit", "freihand")
    save_predictions(tmp_path / "p.npz", dataclasses.replace(predictions, status=status))
    summary = evaluate(options("eval", "freihand", freihand, tmp_path, *words))
    assert summary["status"] == {"converged": 1, "iteration_limit": 1, "behind_camera": 1}
    assert "1 of 3 hands could not be fitted (1 behind camera)" in caplog.text
    (tmp_path / "FreiHAND/run8/run8.json").unlink()
    for far in (11.0, 2.2e8):
        root = predictions.root.copy()
        root[1] = (0, 0, far)
        save_predictions(tmp_path / "p.npz", dataclasses.replace(predictions, root=root))
        with pytest.raises(SubmissionError, match=f"the hand of image {predictions.image_id[1]} is .* m away"):
            evaluate(options("eval", "freihand", freihand, tmp_path, *words))
    assert not (tmp_path / "FreiHAND/run8/run8.json").exists()


def test_mesh_networks_say_what_became_of_each_hand() -> None:
    """Keypoints that coincide place no hand: its row says so, and its root is finite."""
    hand = official_hand(ASSETS, "freihand")
    vertices = torch.as_tensor(ASSETS.v_template, dtype=torch.float32).expand(2, -1, -1)
    joints = mesh_joints(vertices, hand)
    K = torch.tensor([[500.0, 0, 112], [0, 500, 112], [0, 0, 1]]).expand(2, 3, 3)
    seen = project(joints - joints[:, :1] + torch.tensor([0.0, 0, 0.6]), K).clone()
    seen[1] = 100.0
    batch = {"K_image": K, "image": torch.zeros(2, 3, 64, 64), "crop_to_image": torch.eye(2, 3).expand(2, 2, 3)}
    rows = mesh_rows({"vertices": vertices, "keypoint_confidence": torch.ones(2, 21)}, seen, batch, hand)
    assert rows["status"].tolist() == [Status.CONVERGED, Status.KEYPOINTS_COINCIDE]
    assert rows["root"][0] == pytest.approx([0, 0, 0.6], abs=1e-3) and np.isfinite(rows["root"]).all()


def test_hands_seen_by_an_impossible_camera_are_placed_nowhere() -> None:
    rows = {"image_id": np.array([7]), "subject_id": np.zeros(1, int), "sequence_id": np.zeros(1, int)}
    K = np.array([[[-600.0, 0, 320], [0, -600, 240], [0, 0, 1]]])
    pose, betas = np.eye(3)[None, None].repeat(16, 1), np.zeros((1, 10))
    keypoints = np.random.default_rng(0).uniform(100, 300, (1, 21, 2))
    odd = Predictions(**rows, is_left=np.zeros(1, bool), K=K, pose=pose, betas=betas, keypoints_2d=keypoints)
    with pytest.raises(ArtifactError, match="K of image 7"):
        camera_points(odd, official_hand(ASSETS, "ho3d"))
