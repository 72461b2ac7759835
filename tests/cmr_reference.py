"""The CMR networks written down a second time, as formulas over a state dict (docs/architectures.md), eval mode."""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F

State = dict[str, torch.Tensor]


def normed(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    mean, var, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]


def conv_block(state: State, name: str, x: torch.Tensor, padding: int = 1, relu: bool = True) -> torch.Tensor:
    x = F.conv2d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], padding=padding)
    if f"{name}.norm.weight" in state:
        x = normed(state, f"{name}.norm", x)
    return x.clamp_min(0) if relu else x


def basic_layer(state: State, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
    """Two residual blocks of ResNet-18."""
    for block, step in ((f"{name}.0", stride), (f"{name}.1", 1)):
        y = F.conv2d(x, state[f"{block}.conv1.weight"], stride=step, padding=1)
        y = normed(state, f"{block}.bn1", y).clamp_min(0)
        y = normed(state, f"{block}.bn2", F.conv2d(y, state[f"{block}.conv2.weight"], padding=1))
        if f"{block}.downsample.0.weight" in state:
            x = normed(state, f"{block}.downsample.1", F.conv2d(x, state[f"{block}.downsample.0.weight"], stride=step))
        x = (x + y).clamp_min(0)
    return x


def encoder_maps(state: State, name: str, c0: torch.Tensor) -> list[torch.Tensor]:
    maps, x = [c0], F.max_pool2d(c0, 3, 2, 1)
    for number in (1, 2, 3, 4):
        x = basic_layer(state, f"{name}.layer{number}", x, 1 if number == 1 else 2)
        maps.append(x)
    return maps


def reduced(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    x = conv_block(state, f"{name}.reduce.1", conv_block(state, f"{name}.reduce.0", x))
    return conv_block(state, f"{name}.reduce.2", x, padding=0, relu=False)


def decoded_maps(state: State, name: str, maps: list[torch.Tensor]) -> torch.Tensor:
    x = maps[4]
    for i in range(4):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        if i < 3:
            x = torch.cat([x, maps[3 - i]], 1)
        x = conv_block(state, f"{name}_delayer.{i}", x)
    return conv_block(state, f"{name}_head", x, relu=False).sigmoid()


def cascade(state: State, image: torch.Tensor, first: str, third_reads: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Maps of the three decoders, and f."""
    c0 = F.conv2d(image, state["backbone1.conv1.weight"], stride=2, padding=3)
    stage1 = encoder_maps(state, "backbone1", normed(state, "backbone1.bn1", c0).clamp_min(0))
    prior = decoded_maps(state, first, stage1)
    stage2 = encoder_maps(state, "backbone2", reduced(state, "backbone2", torch.cat([stage1[0], prior], 1)))
    uv = decoded_maps(state, "uv", stage2)
    pairs = [uv[:, [a]] + uv[:, [b]] for a, b in itertools.combinations((4, 8, 12, 16, 20), 2)]
    stem = stage1[0] if third_reads == 1 else stage2[0]
    stage3 = encoder_maps(state, "backbone3", reduced(state, "backbone3", torch.cat([stem, uv, *pairs], 1)))
    feature = F.linear(stage3[4].mean((2, 3)), state["backbone3.fc.weight"], state["backbone3.fc.bias"])
    return [prior, uv, decoded_maps(state, "uvm", stage3)], feature


def attended(state: State, feature: torch.Tensor) -> torch.Tensor:
    query, key, value = (
        F.linear(feature, state[f"attention.{n}_conv.weight"], state[f"attention.{n}_conv.bias"])
        for n in ("query", "key", "value")
    )
    rows = [torch.softmax(torch.outer(q, k), dim=-1) @ v for q, k, v in zip(query, key, value, strict=True)]
    return state["attention.gamma"] * torch.stack(rows) + feature


def spiral(state: State, name: str, x: torch.Tensor, spirals: np.ndarray) -> torch.Tensor:
    gathered = torch.stack([x[:, column] for column in spirals.T], 2).flatten(2)
    return F.linear(gathered, state[f"{name}.layer.weight"], state[f"{name}.layer.bias"])


def meshes(
    state: State, feature: torch.Tensor, spirals: list[np.ndarray], ups: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Four meshes, finest first, in units of 0.2 m; spirals and dense ups finest first."""
    x = F.linear(attended(state, feature), state["de_layers.0.weight"], state["de_layers.0.bias"])
    x, found = x.view(len(feature), 49, 512), []
    for step in range(4):
        up, around, name = ups[3 - step], spirals[3 - step], f"de_layers.{step + 1}"
        y = up @ x
        reaches = (("conv", 27), ("conv_2d3", 18), ("conv_d3", 9))
        wide = torch.cat([spiral(state, f"{name}.{part}", y, around[:, :reach]) for part, reach in reaches], -1)
        x = (spiral(state, f"{name}.conv1", y, around[:, :1]) + wide).clamp_min(0)
        mesh = spiral(state, f"heads.{step}", x, around)
        if found:
            mesh = (mesh + up @ found[-1]) / 2
        found.append(mesh)
        x = torch.cat([x, mesh], -1)
    return found[::-1]
