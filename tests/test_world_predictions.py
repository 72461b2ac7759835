"""A keypoint network that says poses (`PoseHead`) in ``--phase predict`` and ``export``: axes, betas, hand models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from datasets import build_dataset
from datasets.synthetic.freihand_writer import write_freihand
from options.run_options import get_args_parser
from src.engine import export
from src.engine.checkpoint import ModelCard, load_network, save_checkpoint
from src.engine.predict import ShapeSource, predict, predict_dataset
from src.personalization.pairing import annotations_of
from template import HandModel, load_hand_assets
from template.assets import STAND_IN_PATH

WEIGHTS, ASSETS = Path("weights/world_keypoints.safetensors"), load_hand_assets(STAND_IN_PATH)
SIZE, CPU = 64, torch.device("cpu")
CARD = ModelCard("pose_2d", "fair", {"poses": True}, SIZE, SIZE, 2.0, ASSETS.name, ASSETS.hash)


class Says(nn.Module):
    """Gives rows of keypoints and poses, and remembers the betas it was told."""

    def __init__(self, keypoints: np.ndarray, pose: np.ndarray) -> None:
        super().__init__()
        self.rows, self.told = [torch.as_tensor(part).float() for part in (keypoints, pose)], []

    def forward(self, image: torch.Tensor, betas: torch.Tensor | None = None, **_: torch.Tensor) -> dict:
        self.told.append(betas)
        keypoints, pose = (part[: len(image)] for part in self.rows)
        betas = torch.zeros(len(image), 10) if betas is None else betas
        return {"keypoints_2d": keypoints, "pose": pose, "betas": betas}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("freihand")
    write_freihand(root, 3, 2, seed=3)
    return build_dataset("freihand", root, "evaluation", crop_size=SIZE)


@pytest.fixture(scope="module")
def network(dataset) -> Says:
    """Says the labelled keypoints, and the labelled pose as a camera turned to their middle sees it."""
    found = predict_dataset(load_network("weights/pose_2d.safetensors")[0], replace(CARD, options={}), dataset, CPU)
    truth, turned = annotations_of(dataset, found), []
    for row in range(len(dataset)):
        sample = dataset[row]
        middle = np.append(sample["keypoints_2d"].mean(axis=0), 1.0)
        turn, _ = Rotation.align_vectors([np.linalg.solve(sample["K"].astype(float), middle)], [[0, 0, 1.0]])
        turned.append(np.concatenate([turn.as_matrix().T @ truth["pose"][row][:1], truth["pose"][row][1:]]))
    return Says(np.stack([dataset[row]["keypoints_2d"] for row in range(len(dataset))]), np.stack(turned))


def test_poses_are_in_the_axes_of_the_camera(dataset, network: Says) -> None:
    found = predict_dataset(network, CARD, dataset, CPU, progress=False)
    truth = annotations_of(dataset, found)
    assert np.abs(found.pose - truth["pose"]).max() < 1e-4
    assert np.abs(network.rows[1][:, 0].numpy() - truth["pose"][:, 0]).max() > 1e-2  # and were not before
    assert found.model_name == "pose_2d" and network.told[-1] is None


def test_told_betas_it_is_named_so_that_they_count_as_no_evidence(dataset, network: Says) -> None:
    found = predict_dataset(network, CARD, dataset, CPU, ShapeSource("gt"), progress=False)
    assert found.model_name == "pose_2d_identity"
    assert np.array_equal(found.betas, annotations_of(dataset, found)["betas"].astype(np.float32))
    assert np.array_equal(network.told[-1].numpy(), found.betas[: len(network.told[-1])])


def test_with_another_hand_model_only_keypoints_are_taken(dataset, network: Says) -> None:
    other = load_hand_assets(STAND_IN_PATH.with_name("stand_in_2.npz"))
    found = predict_dataset(network, CARD, dataset, CPU, progress=False, assets=other)
    assert found.pose is None and found.betas is None and found.keypoints_2d is not None
    words = f"--phase eval --dataset freihand --data_root {dataset.root} --split evaluation --checkpoint {WEIGHTS}"
    words += f" --mano_dir {STAND_IN_PATH.with_name('stand_in_2.npz')} --device cpu --threads 1"
    with pytest.raises(ValueError, match="was trained with the hand model stand-in "):
        predict(get_args_parser().parse_args([*words.split(), "--shape", "gt"]))


def test_exported_it_takes_betas_or_none_and_gives_the_mesh(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs pip install -r requirements-export.txt", exc_type=ImportError)
    pytest.importorskip("onnxscript", reason="needs pip install -r requirements-export.txt", exc_type=ImportError)
    pytest.importorskip("onnxruntime", reason="needs pip install -r requirements-export.txt", exc_type=ImportError)
    torch.manual_seed(0)
    options = {"backbone": "mobilenet_v3_small", "rated": True, "lifts": True, "poses": True}
    card = ModelCard("pose_2d", "fair", options, SIZE, SIZE, 1.5, ASSETS.name, ASSETS.hash)
    save_checkpoint(tmp_path / "world.pt", card, card.build())
    words = ["--phase", "export", "--model", "pose_2d", "--checkpoint", str(tmp_path / "world.pt")]
    file = export.export(get_args_parser().parse_args([*words, "--output", str(tmp_path / "world.onnx")]))
    session = export.open_session(file, threads=1)
    image, betas = export.sample_inputs(["image", "betas"], SIZE, 2)
    betas[1] = torch.nan  # nobody's is known
    names = ["pose", "vertices", "betas_used"]
    pose, vertices, used = session.run(names, {"image": image.numpy(), "betas": betas.numpy()})
    network = load_network(tmp_path / "world.pt")[0]
    with torch.no_grad():
        output = network(image, betas=betas)
    posed = HandModel(ASSETS)(torch.as_tensor(pose), output["betas"])
    assert torch.isfinite(output["betas"]).all() and torch.equal(output["betas"][0], betas[0])
    assert np.abs(used - output["betas"].numpy()).max() < 1e-5
    assert np.abs(vertices - posed.vertices.numpy()).max() < 1e-5 and np.abs(pose - output["pose"].numpy()).max() < 1e-4
    other = ["--mano_dir", str(STAND_IN_PATH.with_name("stand_in_2.npz"))]
    with pytest.raises(ValueError, match="was trained with the hand model stand-in "):
        export.export(get_args_parser().parse_args([*words, *other, "--output", str(tmp_path / "other.onnx")]))
    alone = export.ExportGraph(network, None, True).eval()
    notes = export.metadata(card, alone, load_hand_assets(STAND_IN_PATH.with_name("stand_in_2.npz")), {})
    assert notes["hand_hash"] == ASSETS.hash and "vertices" not in json.loads(notes["outputs"])
    assert "takes wrist, vertices and joints to the camera's axes" in json.loads(notes["outputs"])["pose"]
    whole = export.metadata(replace(card, crop="image"), alone, ASSETS, {})
    assert "the middle of an image cut around the hand" in whole["crop"] and "joints" not in whole["crop"]
