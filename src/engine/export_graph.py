"""The graph that is exported: a network (and its hand layer) with named tensors in and out, of plain operations."""

from __future__ import annotations

import torch
from torch import nn

from conv.pooling import ConstantSparse
from src.models.mesh_joints import mesh_joints
from template import HandModel

#: Outputs in their order, where the network (or the layer) has them: shape after the batch, and meaning.
OUTPUTS = {
    "vertices": "(778, 3) metres, camera axes; the hand layer at zero translation, so the wrist rests at J0(betas); "
    "of mesh networks: relative to the wrist",
    "joints": "(21, 3) metres, standard order, in the frame of vertices; subtract joints[0] for wrist-relative points",
    "pose": "(16, 3, 3) rotation matrices relative to the parent joint, MANO order, mean pose included",
    "betas": "(10) shape coefficients that the network predicts",
    "confidence": "() trust in the predicted shape, higher is better",
    "keypoints_2d": "(21, 2) px of the network input, pixel centres at integers",
    "keypoint_confidence": "(21) in [0, 1]",
}
INPUTS = {
    "image": "(3, S, S) float32 RGB in [-1, 1]: (x / 255 - 0.5) / 0.5",
    "betas": "(10) the person's shape, e.g. of an identity file",
    "K": "(3, 3) intrinsics of the crop, px of the network input",
}


class ExportGraph(nn.Module):
    """A network, and the hand layer after it, as a function of positional tensors.

    Args:
        network: of `load_network`, in eval mode. It is made traceable in place: hand layers become plain,
            constant sparse products become gathers.
        hand: layer that turns pose and betas into vertices and joints; None: the network alone. Of a network
            that predicts vertices it gives the joints, by its regressor.
        knows_shape: the network takes the person's betas.
    """

    def __init__(self, network: nn.Module, hand: HandModel | None, knows_shape: bool) -> None:
        super().__init__()
        self.network, self.hand = network, hand
        self.inputs = ["image"]
        if knows_shape:
            self.inputs.append("betas")
        if getattr(network, "uses_crop_geometry", False):
            self.inputs.append("K")
        for module in list(self.modules()):
            if isinstance(module, HandModel):
                module.plain = True
            for name, child in list(module.named_children()):
                if isinstance(child, ConstantSparse):
                    setattr(module, name, GatherProduct(child))

    def named_outputs(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every output by name, for inputs in the order of ``inputs``."""
        given = dict(zip(self.inputs, tensors, strict=True))
        output = dict(self.network(given["image"], **{name: given[name] for name in self.inputs[1:]}))
        if self.hand is not None and "pose" in output:
            posed = self.hand(output["pose"], output["betas"])
            output |= {"vertices": posed.vertices, "joints": posed.joints}
        elif self.hand is not None and "vertices" in output:
            output["joints"] = mesh_joints(output["vertices"], self.hand)
        return {name: output[name].float() for name in OUTPUTS if name in output and name not in self.inputs}

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The values of `named_outputs`."""
        return tuple(self.named_outputs(*tensors).values())


class GatherProduct(nn.Module):
    """The product of a `ConstantSparse` matrix as a gather and a weighted sum, which ONNX has.

    Rows are padded with zeros to the longest one.
    """

    def __init__(self, sparse: ConstantSparse) -> None:
        super().__init__()
        starts, columns = sparse.forward_rows.long(), sparse.forward_columns.long()
        counts = starts.diff()
        row = torch.arange(len(counts)).repeat_interleave(counts)
        place = torch.arange(len(columns)) - starts[:-1].repeat_interleave(counts)
        index = torch.zeros(len(counts), int(counts.max()), dtype=torch.int64)
        weights = torch.zeros(index.shape)
        index[row, place], weights[row, place] = columns, sparse.forward_values
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, C) features -> (M, C)."""
        return torch.matmul(self.weights[:, None], features[self.index])[:, 0]


def sample_inputs(names: list[str], input_size: int, batch: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Random but plausible inputs, in the order of ``names``."""
    generator = torch.Generator().manual_seed(seed)
    focal = input_size * (3 + torch.rand(batch, generator=generator))
    K = torch.zeros(batch, 3, 3)
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, :2, 2] = input_size * torch.rand(batch, 2, generator=generator)
    K[:, 2, 2] = 1
    made = {
        "image": 2 * torch.rand(batch, 3, input_size, input_size, generator=generator) - 1,
        "betas": torch.randn(batch, 10, generator=generator),
        "K": K,
    }
    return tuple(made[name] for name in names)
