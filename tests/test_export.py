"""ONNX files compute what PyTorch computes, for any batch size, and say how to feed them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from conv.pooling import ConstantSparse
from options.run_options import get_args_parser
from src.engine import export
from src.engine.checkpoint import ModelCard, load_network, save_checkpoint
from src.engine.export import OUTPUTS, ExportGraph, GatherProduct, sample_inputs
from src.models import build_model
from template import HandModel, load_hand_assets

ASSETS = load_hand_assets("template/stand_in.npz")
SIZE = 64


def checkpoint(folder: Path, model: str, **options: object) -> Path:
    """A small random network whose BatchNorm statistics are not those of a fresh one."""
    torch.manual_seed(0)
    options = {"backbone": "mobilenet_v3_small", **options}
    card = ModelCard(model, "fair", options, SIZE, SIZE, 1.5, ASSETS.name, ASSETS.hash)
    network = card.build()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    save_checkpoint(folder / f"{model}.pt", card, network)
    return folder / f"{model}.pt"


def options(*words: str) -> object:
    return get_args_parser().parse_args(["--phase", "export", *words])


def feed(image: torch.Tensor, betas: torch.Tensor, K: torch.Tensor) -> dict[str, np.ndarray]:
    return {"image": image.numpy(), "betas": betas.numpy(), "K": K.numpy()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of the identity-aware network, and its ONNX file with the hand layer."""
    pytest.importorskip("onnx", reason="needs pip install -r requirements-export.txt")
    pytest.importorskip("onnxscript", reason="needs pip install -r requirements-export.txt")
    pytest.importorskip("onnxruntime", reason="needs pip install -r requirements-export.txt")
    folder = tmp_path_factory.mktemp("export")
    weights, output = checkpoint(folder, "mano_identity"), folder / "identity.onnx"
    export.export(options("--model", "mano_identity", "--checkpoint", str(weights), "--output", str(output)))
    return weights, output


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_network_and_layer_match_pytorch(exported: tuple[Path, Path], batch: int) -> None:
    weights, output = exported
    network, card, _ = load_network(weights)
    image, betas, K = sample_inputs(["image", "betas", "K"], SIZE, batch, seed=7)
    with torch.no_grad():
        expected = network(image, betas=betas, K=K)
        posed = HandModel(ASSETS)(expected["pose"], betas)  # the quick layer, not the plain one that was traced
    session = export.open_session(output, threads=1)
    names = [value.name for value in session.get_outputs()]
    assert names == ["vertices", "joints", "pose", "keypoints_2d", "keypoint_confidence"]
    found = dict(zip(names, session.run(None, feed(image, betas, K)), strict=True))
    assert found["vertices"].shape == (batch, 778, 3)
    assert np.abs(found["vertices"] - posed.vertices.numpy()).max() < 1e-4
    assert np.abs(found["joints"] - posed.joints.numpy()).max() < 1e-4
    assert np.abs(found["pose"] - expected["pose"].numpy()).max() < 1e-4
    assert np.abs(found["keypoints_2d"] - expected["keypoints_2d"].numpy()).max() < 1e-2


def test_every_output_is_compared_with_pytorch(exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(exported[0])[0]
    graph = ExportGraph(network, HandModel(ASSETS), True).eval()
    assert export.largest_difference(exported[1], graph, SIZE) < 1e-5
    right = graph.named_outputs
    for name in ("vertices", "keypoints_2d", "keypoint_confidence"):
        moved = lambda *given, name=name: {key: value + (key == name) for key, value in right(*given).items()}  # noqa: E731
        monkeypatch.setattr(graph, "named_outputs", moved)
        assert export.largest_difference(exported[1], graph, SIZE) > 1e-3, name
    monkeypatch.setattr(graph, "named_outputs", lambda *given: {k: v * torch.nan for k, v in right(*given).items()})
    assert np.isnan(export.largest_difference(exported[1], graph, SIZE))  # and no NaN is within a tolerance


def test_shape_and_place_reach_the_outputs(exported: tuple[Path, Path]) -> None:
    """Neither betas nor K was traced as a constant."""
    session = export.open_session(exported[1], threads=1)
    image, betas, K = sample_inputs(["image", "betas", "K"], SIZE, 1)
    vertices, pose = session.run(["vertices", "pose"], feed(image, betas, K))
    larger = session.run(["vertices"], feed(image, betas + 1, K))[0]
    moved = session.run(["pose"], feed(image, betas, K + torch.tensor([[0.0, 0, 30], [0] * 3, [0] * 3])))
    assert np.abs(larger - vertices).max() > 1e-3 and np.abs(moved[0] - pose).max() > 1e-2


def test_file_says_how_to_feed_it(exported: tuple[Path, Path]) -> None:
    import onnx

    model = onnx.load(exported[1])
    notes = {entry.key: entry.value for entry in model.metadata_props}
    card = json.loads(notes["card"])
    assert card["model"] == notes["model"] == "mano_identity" and notes["hand_hash"] == ASSETS.hash
    assert notes["input_size"] == str(SIZE) and "1.5 x" in notes["crop"] and "metres" in notes["units"]
    assert "OpenCV" in notes["frame"] and "(x / 255 - 0.5) / 0.5" in notes["normalisation"]
    assert list(json.loads(notes["inputs"])) == ["image", "betas", "K"]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(Path.cwd()) not in str(model.graph.node[0])  # no source lines of this machine


def test_network_alone(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs pip install -r requirements-export.txt")
    pytest.importorskip("onnxruntime", reason="needs pip install -r requirements-export.txt")
    weights = checkpoint(tmp_path, "pose_2d")
    output = tmp_path / "pose.onnx"
    words = ("--model", "pose_2d", "--resume", str(weights), "--output", str(output))
    export.export(options(*words))
    image = sample_inputs(["image"], SIZE, 2)[0]
    with torch.no_grad():
        expected = load_network(weights)[0](image)["keypoints_2d"].numpy()
    session = export.open_session(output, threads=1)
    assert np.abs(session.run(["keypoints_2d"], {"image": image.numpy()})[0] - expected).max() < 1e-2


@pytest.mark.parametrize(
    ("model", "recipe", "inputs", "outputs"),
    [
        ("mano_baseline_conf", "fair", ["image", "K"], ["pose", "betas", "confidence"]),
        ("mano_identity", "paper", ["image", "betas"], ["pose"]),
        ("pose_2d", "paper", ["image"], ["keypoints_2d", "keypoint_confidence"]),
    ],
)
def test_what_each_network_takes_and_gives(model: str, recipe: str, inputs: list[str], outputs: list[str]) -> None:
    network = build_model(model, recipe, backbone="resnet18")
    graph = ExportGraph(network, None, model.endswith("_identity")).eval()
    assert graph.inputs == inputs
    with torch.no_grad():
        found = list(graph.named_outputs(*sample_inputs(inputs, SIZE, 2)))
    assert [name for name in found if not name.startswith("keypoint") or "pose" not in found] == outputs
    assert set(found) <= set(OUTPUTS)


def test_mesh_networks_keep_their_numbers() -> None:
    torch.manual_seed(0)
    network = build_model("cmr_identity", "paper", with_mask=False).eval()
    image, betas = sample_inputs(["image", "betas"], SIZE, 2)
    with torch.no_grad():
        expected = network(image, betas=betas)["vertices"]
        graph = ExportGraph(network, HandModel(ASSETS, joint_type="regressed"), True).eval()
        found = graph.named_outputs(image, betas)
    assert graph.inputs == ["image", "betas"]
    assert not any(isinstance(module, ConstantSparse) for module in graph.modules())
    assert (found["vertices"] - expected).abs().max() < 1e-5
    wrist = torch.as_tensor(ASSETS.J_regressor[0], dtype=torch.float32) @ expected
    assert (found["joints"][:, 0] - wrist).abs().max() < 1e-5 and found["joints"].shape == (2, 21, 3)
    card = ModelCard("cmr_identity", "paper", input_size=SIZE)
    assert export.metadata(card, graph, ASSETS, {})["joint_definition"] == "regressed, tips manopth"


def test_gather_product_is_the_matrix_product() -> None:
    generator = np.random.default_rng(0)
    matrix = scipy.sparse.random(13, 9, density=0.3, random_state=1, format="lil")
    matrix[4] = 0  # an empty row
    features = generator.normal(size=(9, 5)).astype(np.float32)
    found = GatherProduct(ConstantSparse(scipy.sparse.csr_matrix(matrix)))(torch.from_numpy(features))
    assert np.abs(found.numpy() - matrix.toarray() @ features).max() < 1e-5


def test_missing_packages_name_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(export.ExportError, match=r"needs onnx.*pip install -r requirements-export\.txt"):
        export.export(options("--output", str(tmp_path / "x.onnx")))


def test_refuses_what_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export, "require_packages", lambda: None)
    with pytest.raises(ValueError, match=r"out/demo; give it a name that ends in \.onnx"):
        export.export(options())
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        export.export(options("--output", str(tmp_path / "x.onnx"), "--checkpoint", str(tmp_path / "none.pt")))
    weights = checkpoint(tmp_path, "pose_2d")
    with pytest.raises(ValueError, match="is a pose_2d, but a mano_identity is needed"):
        words = ("--model", "mano_identity", "--output", str(tmp_path / "x.onnx"), "--checkpoint", str(weights))
        export.export(options(*words))
    with pytest.raises(ValueError, match="a pose_2d that says no pose has no hand layer; leave --without_layer out"):
        words = ("--model", "pose_2d", "--output", str(tmp_path / "x.onnx"), "--checkpoint", str(weights))
        export.export(options(*words, "--without_layer"))


def test_the_detectors_file_says_how_to_feed_a_detector() -> None:
    network = build_model("hand_detector").eval()
    network.scale.fill_(0.7), network.offset.fill_(-0.2), network.threshold.fill_(0.4)
    card = ModelCard("hand_detector", input_size=SIZE, crop_size=SIZE, crop_scale=1.0)
    notes = export.metadata(card, ExportGraph(network, None, False).eval(), ASSETS, {})
    assert notes["crop"].startswith("the whole image") and notes["side"].startswith("both")
    assert notes["with_layer"] == "no" and not {"hand_name", "hand_hash", "joint_definition"} & set(notes)
    assert json.loads(notes["probability"]) == pytest.approx({"scale": 0.7, "offset": -0.2, "threshold": 0.4})


def test_a_file_that_disagrees_is_not_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export, "require_packages", lambda: None)
    monkeypatch.setattr(export, "onnx_bytes", lambda *_: b"not checked here")
    monkeypatch.setattr(export, "largest_difference", lambda *_: 2e-4)
    weights, output = checkpoint(tmp_path, "pose_2d"), tmp_path / "pose.onnx"
    with pytest.raises(export.ExportError, match="0.0002; not written"):
        export.export(options("--model", "pose_2d", "--output", str(output), "--checkpoint", str(weights)))
    assert not output.exists()


def test_shipped_weights_are_found(tmp_path: Path) -> None:
    args = options("--model", "mano_baseline", "--weights", str(tmp_path))
    assert export.weights_file(args).name == "mano_baseline_conf.safetensors"
    (tmp_path / "mano_baseline.safetensors").touch()
    assert export.weights_file(args).name == "mano_baseline.safetensors"
    assert export.weights_file(options("--resume", "run.pt")) == Path("run.pt")
    assert export.weights_file(options("--resume", "--out_dir", str(tmp_path))).name == "last.pt"
