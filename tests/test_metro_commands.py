"""METRO by command: training, prediction, evaluation, official files, ONNX, and the demo with where joints look."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_metro import ASSETS, BODY, SMALL

from datasets.synthetic.freihand_writer import write_freihand
from datasets.synthetic.samples import copy_freihand
from options.recipes import apply_recipe
from options.run_options import get_args_parser
from src.engine import export, run_phase
from src.engine.checkpoint import ModelCard, save_checkpoint
from src.engine.train import Trainer
from src.models import build_model
from src.models.mesh_joints import mesh_hand
from src.models.metro.template_tokens import VERTICES_195
from src.photos.run_images import image_demo
from utils.artifacts import load_predictions
from utils.camera import project_numpy
from utils.drawing.attention import draw_attention


def options(root: Path, out: Path, phase: str, model: str, *extra: str) -> object:
    words = ["--phase", phase, "--model", model, "--data_root", str(root), "--out_dir", str(out), "--device", "cpu"]
    if phase == "train":
        words += ["--input_size", "64", "--crop_size", "64", "--crop_scale", "2"]
    return get_args_parser().parse_args([*words, *extra])


@pytest.mark.parametrize(("model", "recipe"), [("metro", "paper"), ("metro", "fair"), ("metro_identity", "fair")])
def test_trains_predicts_and_evaluates(root: Path, tmp_path: Path, model: str, recipe: str) -> None:
    words = (
        "--recipe",
        recipe,
        "--backbone",
        "mobilenet_v3_small",
        "--epochs",
        "1",
        "--batch_size",
        "4" if recipe == "paper" else "8",
    )
    args = apply_recipe(options(root, tmp_path, "train", model, *words, "--max_images", "24", "--val_images", "2"))
    if recipe == "paper":  # the released sizes take half a gigabyte: one step, no checkpoint
        trainer = Trainer(args)
        batch = next(iter(trainer.loader))
        terms = trainer._step(batch)
        assert all(value.grad is not None for value in trainer.model.parameters() if value.requires_grad)
        assert 0 < terms["loss"] < 1000 and 0 < trainer.validate()["mpjpe_mm"] < 1000
        return
    trainer = Trainer(args)
    trainer.run()  # three steps
    assert all(value.grad is not None for value in trainer.model.parameters() if value.requires_grad)
    last, found, results = trainer.folder.last, tmp_path / "found.npz", tmp_path / "results.json"
    common = ("--checkpoint", str(last), "--max_images", "4")
    shape = ("--shape", "mean") if model.endswith("identity") else ()
    run_phase(options(root, tmp_path, "predict", model, *common, *shape, "--predictions", str(found)))
    predictions = load_predictions(found)
    assert predictions.model_name == model and predictions.vertices.shape == (4, 778, 3)
    run_phase(options(root, tmp_path, "eval", model, *common, *shape, "--results", str(results)))
    assert "mpjpe" in results.read_text()


def small_checkpoint(path: Path, model: str, recipe: str) -> Path:
    """A random network of few channels, whose hands are of a hand's size."""
    torch.manual_seed(0)
    options = {**BODY, **({"transformer": SMALL} if recipe == "paper" else {})}
    network = build_model(model, recipe, **options)
    with torch.no_grad():
        if recipe == "fair":  # else everything starts at one point
            network.start.bias.copy_(torch.eye(3).flatten())
    save_checkpoint(path, ModelCard(model, recipe, options, 64, 64, 1.5, ASSETS.name, ASSETS.hash), network)
    return path


def test_the_learning_rate_of_what_is_trained_already(root: Path, tmp_path: Path) -> None:
    words = (
        "--backbone",
        "mobilenet_v3_small",
        "--lr",
        "0.02",
        "--body_lr",
        "0.001",
        "--max_images",
        "24",
        "--batch_size",
        "8",
    )
    trainer = Trainer(apply_recipe(options(root, tmp_path, "train", "metro", *words, "--schedule", "constant")))
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.model.train()
    trainer._step(next(iter(trainer.loader)))
    for name, value in trainer.model.named_parameters():  # Adam's first step is the rate, whatever the gradient
        moved = float((value - before[name]).detach().abs().max())
        if name.split(".")[0] in ("backbone", "heatmaps", "feature"):
            assert moved < 0.0011, name
        elif name == "transformer.encoders.0.head.weight":
            assert 0.015 < moved < 0.025
    cascade = options(root, tmp_path, "train", "cmr_sg", "--backbone", "resnet18", "--body_lr", "0.001")
    with pytest.raises(ValueError, match="--body_lr is for networks with modules backbone, heatmaps, feature"):
        Trainer(apply_recipe(cascade))


@pytest.mark.parametrize("model", ["metro", "metro_identity"])
def test_freihand_s_file(model: str, tmp_path: Path) -> None:
    write_freihand(tmp_path / "data", num_train=1, num_eval=2)
    weights = small_checkpoint(tmp_path / "small.pt", model, "fair")
    words = ["--phase", "eval", "--dataset", "freihand", "--data_root", str(tmp_path / "data"), "--device", "cpu"]
    words += ["--model", model, "--checkpoint", str(weights), "--out_dir", str(tmp_path), "--submit", "freihand"]
    words += ["--shape", "mean"] if model == "metro_identity" else []
    run_phase(get_args_parser().parse_args(words))
    joints, vertices = json.loads((tmp_path / f"FreiHAND/{model}/{model}.json").read_text())
    assert np.shape(joints) == (2, 21, 3) and np.shape(vertices) == (2, 778, 3)


def test_onnx_computes_the_same(tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs pip install -r requirements-export.txt")
    weights, output = small_checkpoint(tmp_path / "small.pt", "metro_identity", "fair"), tmp_path / "small.onnx"
    words = ["--phase", "export", "--model", "metro_identity", "--checkpoint", str(weights), "--output", str(output)]
    export.export(get_args_parser().parse_args(words))  # compares with PyTorch, batches of 1 and 3, to 1e-4 m
    session, inputs = export.open_session(output, threads=1), ["image", "betas", "K"]
    assert [value.name for value in session.get_inputs()] == inputs
    feed = {name: value.numpy() for name, value in zip(inputs, export.sample_inputs(inputs, 64, 1), strict=True)}
    joints, vertices = session.run(["joints", "vertices"], feed)
    assert joints.shape == (1, 21, 3) and vertices.shape == (1, 778, 3) and np.ptp(vertices) > 1e-2
    larger = session.run(["vertices"], feed | {"betas": feed["betas"] + 1})[0]
    assert np.abs(larger - vertices).max() > 1e-3


@torch.no_grad()
def test_what_an_exported_metro_takes_and_gives() -> None:
    network = build_model("metro", "paper", **BODY, transformer=SMALL).eval()
    graph = export.ExportGraph(network, mesh_hand(ASSETS, "dex_ycb"), knows_shape=False).eval()
    assert graph.inputs == ["image"]
    image = export.sample_inputs(["image"], 64, 2)[0]
    found, expected = graph.named_outputs(image), network(image)
    assert list(found) == ["vertices", "joints", "keypoints_2d", "keypoint_confidence"]
    assert torch.allclose(found["vertices"], expected["vertices"], rtol=0, atol=1e-6)
    wrist = torch.as_tensor(ASSETS.J_regressor[0], dtype=torch.float32) @ expected["vertices"]
    assert torch.allclose(found["joints"][:, 0], wrist, rtol=0, atol=1e-6)


def test_lines_lead_from_the_joint_to_what_it_looks_at() -> None:
    vertices = ASSETS.v_template + np.array([0.0, 0.0, 0.6])
    joints = np.tile(vertices.mean(0), (21, 1))
    K = np.array([[600.0, 0, 100], [0, 600, 100], [0, 0, 1]])
    image, attention = np.full((200, 200, 3), 90, np.uint8), np.zeros((21, 778))
    dark = draw_attention(image, vertices, joints, ASSETS.faces, K, attention, 8)
    first, second = VERTICES_195[3], VERTICES_195[150]
    attention[8, [first, second]] = 0.3, 0.03
    drawn = draw_attention(image, vertices, joints, ASSETS.faces, K, attention, 8)
    changed = np.abs(drawn.astype(int) - dark).sum(2)
    for share, vertex in ((1.0, first), (0.1, second)):
        u, v = project_numpy(vertices[vertex], K).round().astype(int)
        colour = np.array((240, 170, 20)) * share + (1 - share) * dark[v, u]
        assert np.abs(drawn[v, u] - colour).max() < 30 and changed[v, u] > 5
    lines = [project_numpy(np.linspace(joints[8], vertices[vertex], 200), K) for vertex in (first, second)]
    far = np.ones((200, 200), bool)
    for u, v in np.concatenate(lines).round().astype(int):
        far[max(v - 5, 0) : v + 6, max(u - 5, 0) : u + 6] = False
    assert (changed[far] == 0).all()


def test_the_demo_s_page_shows_where_joints_look(tmp_path: Path) -> None:
    write_freihand(tmp_path / "data", 1, 1, seed=5)
    (tmp_path / "pictures").mkdir()
    copy_freihand(tmp_path / "data", tmp_path / "pictures", 1)
    weights = small_checkpoint(tmp_path / "small.pt", "metro_identity", "fair")
    words = ["--phase", "demo", "--images", str(tmp_path / "pictures"), "--output", str(tmp_path / "demo")]
    words += ["--model", "metro_identity", "--checkpoint", str(weights), "--shape", "mean", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:  # a random network's keypoints are nobody's: any misfit will do
        patch.setattr("src.photos.estimator.check_misfit", lambda *_: 0.5)
        patch.setattr("src.photos.estimator.check_status", lambda *_: None)
        patch.setattr("src.photos.estimator.check_depth", lambda result: result)
        image_demo(get_args_parser().parse_args(words))
    page = (tmp_path / "demo" / "index.html").read_text()
    assert re.findall(r'<label for="view0-\d">([^<]*)<', page) == ["mesh", "2D pose", "attention"]
    data = re.search(r'<img alt="attention of [^"]*" src="data:image/jpeg;base64,([^"]*)"', page)[1]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (880, 880, 3) and picture.std() > 1
