"""``--engine onnx``: networks through ONNX Runtime, exported once and kept, in PyTorch where that does not work."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib.util
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from src.engine.checkpoint import ModelCard
from src.engine.export import TOLERANCE, ExportGraph, largest_difference, open_session, sample_inputs
from src.engine.networks import is_told_shape
from utils.artifacts import model_hash
from utils.files import atomic_path
from utils.install import pip_install_extra

logger = logging.getLogger(__name__)

OPSET = 17
REQUIRED = ("onnx", "onnxruntime")
#: What networks give for their training only.
FOR_TRAINING = {"heatmap_logits", "event_logits", "hand_logits", "feature", "pose_6d"}


class OnnxNetwork(nn.Module):
    """What a network of PyTorch gives, computed by ONNX Runtime on the CPU; everything else of it is the network's."""

    def __init__(self, network: nn.Module, path: Path) -> None:
        super().__init__()
        self.network, self.session = network.eval(), open_session(path)
        #: Of one image, as a stream has it: without the arithmetic of sizes a tenth of the time is saved.
        self.single = open_session(path, batch=1)
        self.asked = [value.name for value in self.session.get_inputs()]
        self.given = [value.name for value in self.session.get_outputs()]

    def __getattr__(self, name: str) -> Any:
        """Its own, or the network's: ``rating``, ``probability`` and the like."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)

    def forward(self, image: torch.Tensor, **known: torch.Tensor) -> dict[str, torch.Tensor]:
        """See the network's; what it merely repeats of ``known`` (betas) is repeated."""
        tensors = {"image": image, **known}
        feed = {name: np.ascontiguousarray(tensors[name].float().numpy()) for name in self.asked}
        session = self.single if len(image) == 1 else self.session
        found = zip(self.given, session.run(self.given, feed), strict=True)
        return {name: tensors[name] for name in self.asked if name == "betas"} | {
            name: torch.from_numpy(value) for name, value in found
        }


def through_onnx(network: nn.Module, card: ModelCard, folder: Path | None = None) -> nn.Module:
    """A network of `for_inference` through ONNX Runtime, or itself, with a warning that says why.

    Args:
        network, card: on the CPU.
        folder: of exported files, one for each network and version of PyTorch; None: `cache_folder`.
    """
    if isinstance(network, OnnxNetwork):
        return network
    if missing := [name for name in REQUIRED if importlib.util.find_spec(name) is None]:
        logger.warning(
            "%s stays in PyTorch: %s not installed (%s)", card.model, " and ".join(missing), pip_install_extra("export")
        )
        return network
    # Other weights, options or versions have another file.
    made_of = [model_hash(network.state_dict()), dataclasses.asdict(card), OPSET, torch.__version__]
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()
    path = (cache_folder() if folder is None else folder) / f"{card.model}_{digest[:20]}.onnx"
    try:
        if path.is_file():
            try:
                return OnnxNetwork(network, path)
            except Exception as error:  # whatever onnxruntime says of a damaged file
                logger.info("%s: written anew (%s)", path, error)
        logger.info("%s: exported to %s, once", card.model, path)
        with atomic_path(path) as temporary:
            write_onnx(network, card, temporary)
        return OnnxNetwork(network, path)
    except Exception as error:  # no exporter knows every network, no folder can always be written
        logger.warning("%s stays in PyTorch: %s", card.model, str(error).strip().split("\n")[0][:200] or repr(error))
        return network


def cache_folder() -> Path:
    """Where exported files are kept: ``$XDG_CACHE_HOME/handid``, by default ``~/.cache/handid``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "handid"


@torch.no_grad()
def write_onnx(network: nn.Module, card: ModelCard, path: Path) -> None:
    """Write a network without hand layer for any batch size, and compare it with PyTorch's for 1 and 3.

    Traced once, by PyTorch's older exporter: the newer one, of ``--phase export``, needs half a minute for the same.

    Raises:
        ValueError: an output has no name in `export.OUTPUTS`. RuntimeError: the file gives something else.
    """
    graph = ExportGraph(copy.deepcopy(network), None, is_told_shape(card)).eval()
    inputs = sample_inputs(graph.inputs, card.input_size, 3)
    expected = graph.named_outputs(*inputs)
    raw = graph.network(inputs[0], **dict(zip(graph.inputs[1:], inputs[1:], strict=True)))
    if lost := sorted(
        {name for name, value in raw.items() if value is not None} - {*expected, *graph.inputs, *FOR_TRAINING}
    ):
        raise ValueError(f"its outputs {', '.join(lost)} have no place in an exported file")
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its age, and of Python numbers in traces; the file is compared below
        torch.onnx.export(
            graph, inputs, str(path), dynamo=False, opset_version=OPSET,
            input_names=graph.inputs, output_names=list(expected),
            dynamic_axes={name: {0: "batch"} for name in (*graph.inputs, *expected)},
        )  # fmt: skip
    difference = largest_difference(path, graph, card.input_size)
    if not difference <= TOLERANCE:
        raise RuntimeError(f"an output would differ from PyTorch's by {difference:.2g} of its largest number")
