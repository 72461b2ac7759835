"""METRO's transformer is its description: against slow loops in float64, output by output and head by head."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_metro import ASSETS, SHAPES, SMALL, K

from src.engine.checkpoint import load_owned
from src.models import build_model
from src.models.metro.released import UNUSED
from src.models.metro.template_tokens import VERTICES_195
from utils.joints import MANO_TO_STANDARD, tip_vertices


def slow_layer(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    """One BERT layer over tokens (T, C), token by token and head by head."""

    def linear(part: str, y: np.ndarray) -> np.ndarray:
        return y @ state[f"{name}.{part}.weight"].T + state[f"{name}.{part}.bias"]

    def norm(part: str, y: np.ndarray) -> np.ndarray:
        centred = y - y.mean()
        scaled = centred / math.sqrt((centred**2).mean() + 1e-12)
        return scaled * state[f"{name}.{part}.weight"] + state[f"{name}.{part}.bias"]

    query, key, value = (linear(f"attention.self.{part}", x) for part in ("query", "key", "value"))
    size, rows = x.shape[1] // 4, []
    for token in range(len(x)):
        seen = np.zeros(x.shape[1])
        for head in range(4):
            part = slice(head * size, (head + 1) * size)
            energy = np.array([query[token, part] @ key[other, part] for other in range(len(x))]) / math.sqrt(size)
            share = np.exp(energy - energy.max())
            seen[part] = share / share.sum() @ value[:, part]
        y = norm("attention.output.LayerNorm", linear("attention.output.dense", seen) + x[token])
        wide = linear("intermediate.dense", y)
        wide = np.array([0.5 * number * (1 + math.erf(number / math.sqrt(2))) for number in wide])
        rows.append(norm("output.LayerNorm", linear("output.dense", wide) + y))
    return np.stack(rows)


def slow_metro(feature: np.ndarray, points: np.ndarray, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The description: a feature (C,) and a template (216, 3) to outputs, by released names, in float64."""
    x = np.stack([np.concatenate([point, feature]) for point in points])
    for encoder in range(3):
        name = f"trans_encoder.{encoder}"
        bert = f"{name}.bert"
        hidden = x @ state[f"{bert}.img_embedding.weight"].T + state[f"{bert}.img_embedding.bias"]
        hidden = hidden + state[f"{bert}.position_embeddings.weight"][: len(x)]
        for number in range(2):
            hidden = slow_layer(hidden, state, f"{bert}.encoder.layer.{number}")
        out = hidden @ state[f"{name}.cls_head.weight"].T + state[f"{name}.cls_head.bias"]
        x = out + x @ state[f"{name}.residual.weight"].T + state[f"{name}.residual.bias"]
    each = x @ state["cam_param_fc.weight"][0] + state["cam_param_fc.bias"]
    mixed = state["cam_param_fc2.weight"] @ each + state["cam_param_fc2.bias"]
    camera = state["cam_param_fc3.weight"] @ mixed + state["cam_param_fc3.bias"]
    mesh = np.stack([state["upsampling.weight"] @ x[21:, axis] + state["upsampling.bias"] for axis in range(3)], axis=1)
    scale, right, down = camera
    seen = [[scale * (x[joint, 0] + right), scale * (x[joint, 1] + down)] for joint in range(21)]
    keypoints = (np.array(seen) + 1) * 32 - 0.5
    return {"joints": x[:21], "vertices_coarse": x[21:], "vertices": mesh, "camera": camera, "keypoints_2d": keypoints}


def small_shapes() -> dict[str, list[int]]:
    """Released names at the sizes of `SMALL` on a ResNet-18, without its backbone."""
    shapes: dict[str, list[int]] = {}
    sizes = {0: (515, 16, 12), 1: (12, 8, 8), 2: (8, 8, 3)}
    for name in SHAPES:
        parts = name.split(".")
        if parts[0] != "trans_encoder" or UNUSED.fullmatch(name) or ".layer.2." in name or ".layer.3." in name:
            continue
        inputs, width, outputs = sizes[int(parts[1])]
        if name.endswith("position_embeddings.weight"):
            shapes[name] = [512, width]
            continue
        rows, columns = width, width
        rows = 4 * width if ".intermediate." in name else outputs if parts[2] in ("cls_head", "residual") else rows
        if ".img_embedding." in name or parts[2] == "residual":
            columns = inputs
        if ".output.dense." in name and ".attention." not in name:
            columns = 4 * width
        shapes[name] = [rows] if name.endswith("bias") or "LayerNorm" in name else [rows, columns]
    return shapes | {name: SHAPES[name] for name in SHAPES if name.startswith(("upsampling", "cam_param"))}


@torch.no_grad()
def test_forward_is_the_description(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)  # of the backbone
    network = build_model("metro", "paper", backbone="resnet18", transformer=SMALL).eval()
    state = {}
    for name, shape in small_shapes().items():
        value = torch.randn(shape, generator=generator)
        state[name] = value / math.sqrt(shape[-1]) if len(shape) == 2 else value * 0.2 + 1.0 * ("Norm.weight" in name)
    backbone = {f"backbone.{name}": value for name, value in network.backbone.state_dict().items()}
    torch.save(state | backbone, tmp_path / "small.bin")
    load_owned(tmp_path / "small.bin", network)
    image = torch.rand(1, 3, 64, 64, generator=generator)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    body = copy.deepcopy(network.backbone).double()
    feature = body(((image[0].permute(1, 2, 0) - mean) / std).permute(2, 0, 1)[None].double())[0].numpy()
    regressor = ASSETS.J_regressor @ ASSETS.v_template
    joints = np.concatenate([regressor, ASSETS.v_template[list(tip_vertices("manopth"))]])[list(MANO_TO_STANDARD)]
    points = np.concatenate([joints, ASSETS.v_template[list(VERTICES_195)]]) - joints[0]
    exact = slow_metro(feature, points, {name: value.double().numpy() for name, value in state.items()})
    found = network((image - 0.5) / 0.5)
    for name, expected in exact.items():
        size = max(1.0, np.abs(expected).max())
        assert np.abs(found[name][0].numpy() - expected).max() < 1e-5 * size, name


@torch.no_grad()
def test_attention_is_what_the_layers_use() -> None:
    network = build_model("metro", "paper", backbone="resnet18", transformer=SMALL).eval()
    encoder = network.transformer.encoders[0]
    tokens = torch.randn(2, 216, 515)
    layer, hidden = encoder.layers[0], encoder.embed(tokens)
    maps = layer.attention(hidden)
    assert maps.shape == (2, 4, 216, 216)
    assert torch.equal(encoder.attention(tokens), encoder.layers[1].attention(layer(hidden)))
    values = layer.value(hidden).unflatten(2, (4, 4)).transpose(1, 2)
    y = layer.norm1(hidden + layer.attended((maps @ values).transpose(1, 2).flatten(2)))
    expected = layer.norm2(y + layer.narrow(torch.nn.functional.gelu(layer.widen(y))))
    torch.testing.assert_close(layer(hidden), expected, rtol=0, atol=1e-5)
    plain = copy.deepcopy(layer).train()
    plain.dropout = 0.0  # then a CPU's training step does without the fused attention
    torch.testing.assert_close(plain(hidden), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("recipe", ["fair", "paper"])
@torch.no_grad()
def test_attention_of_joints_is_the_last_encoder_s(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"transformer": SMALL} if recipe == "paper" else {}
    network = build_model("metro_identity", recipe, backbone="mobilenet_v3_small", **sizes).eval()
    hidden = []
    last = network.transformer.encoders[-1].layers[-1]
    last.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0].double()))
    image, betas = torch.randn(2, 3, 64, 64), torch.randn(2, 10)
    network(image, betas=betas, K=K)
    width = hidden[0].shape[2] // last.heads
    energy = torch.zeros(2, 216, 216, dtype=torch.float64)
    for head in range(last.heads):  # slowly, in float64
        part = slice(head * width, (head + 1) * width)
        query, key = (
            hidden[0] @ linear.weight[part].double().T + linear.bias[part].double() for linear in (last.query, last.key)
        )
        energy += torch.exp(torch.log_softmax(query @ key.transpose(1, 2) / math.sqrt(width), dim=-1)) / last.heads
    found = network.attention(image, betas=betas, K=K)
    assert found.shape == (2, 21, 778)
    assert torch.allclose(found[:, :, list(VERTICES_195)].double(), energy[:, :21, 21:], rtol=0, atol=1e-5)
    others = [vertex for vertex in range(778) if vertex not in VERTICES_195]
    assert (found[:, :, others] == 0).all() and (found.sum(-1) < 1).all()
