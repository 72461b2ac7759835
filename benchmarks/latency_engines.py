"""Ways to run an identity-aware network and its hand layer on one image: the engines of ``latency.py``."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from src.engine.checkpoint import ModelCard
from src.engine.export import ExportGraph, metadata, onnx_bytes, open_session
from template import HandModel

Arrays = dict[str, np.ndarray]
NAMES = ("torch_fp32", "torch_bf16_channels_last", "torch_compile", "onnxruntime")


class TorchEngine:
    """PyTorch as it is, in bfloat16 with channels last in memory, or compiled.

    Args:
        network: of `load_network`; in float32.
        hand: hand layer in float32.
        betas: (1, 10) the known shape.
        bfloat16: backbone and heat-map head in bfloat16; the small heads stay in float32.
        compiled: by `torch.compile` (needs a C++ compiler on the CPU).
    """

    def __init__(
        self, network: nn.Module, hand: HandModel, betas: np.ndarray, bfloat16: bool = False, compiled: bool = False
    ) -> None:
        # .eval() again: a copied torch.fx graph of two modes comes back in the one for training.
        self.network, self.hand, self.betas = copy.deepcopy(network).eval(), hand, torch.from_numpy(betas)
        self.dtype = torch.float32
        if bfloat16:
            self.dtype = torch.bfloat16
            self.network.to(memory_format=torch.channels_last)
            for part in (self.network.backbone, self.network.heatmaps):
                part.to(self.dtype)
        if compiled:
            self.network = torch.compile(self.network)

    @torch.inference_mode()
    def network_outputs(self, image: np.ndarray, K: np.ndarray) -> dict[str, torch.Tensor]:
        """Outputs of the network for image (1, 3, S, S) float32 in [-1, 1] and K (1, 3, 3) px."""
        tensor = torch.from_numpy(image).to(self.dtype)
        if self.dtype == torch.bfloat16:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return self.network(tensor, betas=self.betas, K=torch.from_numpy(K))

    @torch.inference_mode()
    def layer_outputs(self, output: dict[str, torch.Tensor]) -> Arrays:
        """``vertices``, ``joints`` (metres), ``pose`` and ``keypoints_2d`` (px of the input), one row each."""
        posed = self.hand(output["pose"], self.betas)
        kept = {"pose": output["pose"], "keypoints_2d": output["keypoints_2d"]}
        kept |= {"vertices": posed.vertices, "joints": posed.joints}
        return {name: value.float().numpy() for name, value in kept.items()}


class OnnxEngine:
    """The file of ``run.py --phase export``: network and layer in one graph, so the layer has no time of its own."""

    def __init__(self, network: nn.Module, card: ModelCard, hand: HandModel, betas: np.ndarray) -> None:
        graph = ExportGraph(copy.deepcopy(network), HandModel(hand.assets, plain=True), knows_shape=True).eval()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            path = Path(folder) / "network.onnx"
            path.write_bytes(onnx_bytes(graph, card.input_size, metadata(card, graph, hand.assets, {})))
            self.session = open_session(path)
        self.names = [output.name for output in self.session.get_outputs()]
        self.betas = betas

    def network_outputs(self, image: np.ndarray, K: np.ndarray) -> Arrays:
        """Everything, layer included."""
        return dict(zip(self.names, self.session.run(None, {"image": image, "betas": self.betas, "K": K}), strict=True))

    def layer_outputs(self, output: Arrays) -> Arrays:
        """Nothing is left to do."""
        return output


def make_engines(
    names: list[str], network: nn.Module, card: ModelCard, hand: HandModel, betas: np.ndarray
) -> tuple[dict[str, Any], dict[str, str]]:
    """The engines that this machine can run, and why it cannot run the others.

    Every engine is tried on one image before it counts as there.
    """
    makers: dict[str, Callable[[], Any]] = {
        "torch_fp32": lambda: TorchEngine(network, hand, betas),
        "torch_bf16_channels_last": lambda: TorchEngine(network, hand, betas, bfloat16=True),
        "torch_compile": lambda: TorchEngine(network, hand, betas, compiled=True),
        "onnxruntime": lambda: OnnxEngine(network, card, hand, betas),
    }
    engines, missing = {}, {}
    image = np.zeros((1, 3, card.input_size, card.input_size), np.float32)
    K = np.array([[[300, 0, card.input_size / 2], [0, 300, card.input_size / 2], [0, 0, 1]]], np.float32)
    for name in names:
        try:
            engine = makers[name]()
            for _ in range(10):  # first use of kernels and threads
                engine.layer_outputs(engine.network_outputs(image, K))
        except Exception as error:  # a compiler or a package that is not there: the others are still measured
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        else:
            engines[name] = engine
    return engines, missing
