"""``run.py --phase export``: a network, with or without its hand layer, as an ONNX file that says how to feed it."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import logging
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from conv.pooling import ConstantSparse
from src.engine import config
from src.engine.checkpoint import ModelCard, load_network
from src.engine.networks import check_hand, is_told_shape, says_poses
from src.engine.run_folder import RunFolder, run_path, versions
from src.models.mesh_joints import is_mesh_model, mesh_hand, mesh_joints
from template import HandAssets, HandModel
from utils.files import atomic_path, writable_file
from utils.install import pip_install_extra

logger = logging.getLogger(__name__)

OPSET = 20
REQUIRED = ("onnx", "onnxscript")
#: Largest difference to PyTorch that an exported file may have, see `largest_difference`.
TOLERANCE = 1e-4

#: Outputs in their order, where the network (or the layer) has them: shape after the batch, and meaning.
OUTPUTS = {
    "vertices": "(778, 3) metres, camera axes; the hand layer at zero translation, so the wrist rests at J0(betas); "
    "of mesh networks: relative to the wrist; of pose_2d in the axes of its pose",
    "joints": "(21, 3) metres, standard order, in the frame of vertices; subtract joints[0] for wrist-relative points",
    "pose": "(16, 3, 3) rotation matrices relative to the parent joint, MANO order, mean pose included; of pose_2d the "
    "wrist's is in the axes of a camera turned to the hand: the smallest rotation that takes the optical axis to the "
    "ray through the mean of keypoints_2d, K^-1 (x, y, 1), takes wrist, vertices and joints to the camera's axes",
    "betas": "(10) shape coefficients that the network predicts",
    "betas_used": "(10) of pose_2d: those of its mesh, the input betas or, where they are NaN, the network's own",
    "confidence": "() trust in the predicted shape, higher is better",
    "keypoints_2d": "(21, 2) px of the network input, pixel centres at integers",
    "keypoint_confidence": "(21) in [0, 1]",
    "is_hand": "() probability that the crop shows a hand",
    "is_left": "() probability that it shows a left hand",
    "depth": "(21) metres, keypoints behind their mean along the ray through the hand, of a hand of mean size",
    "extent": "() metres across the crop at such a hand",
    "class_logits": "(N) of a hand at each cell; its probability is sigmoid(scale * logit + offset), with the numbers "
    "of the metadata's probability, whose threshold is the one to ask for",
    "boxes": "(N, 4) left, top, right, bottom, px of the network input, of the hand at each cell",
}
INPUTS = {
    "image": "(3, S, S) float32 RGB in [-1, 1]: (x / 255 - 0.5) / 0.5",
    "betas": "(10) the person's shape, e.g. of an identity file; of pose_2d NaN where nobody's is known",
    "K": "(3, 3) intrinsics of the crop, px of the network input",
}


class ExportError(RuntimeError):
    """A network could not be exported, or the exported file does not compute what the network computes."""


def export(args: argparse.Namespace) -> Path:
    """Write the ONNX file that the options describe and, where onnxruntime is there, compare it with PyTorch.

    Args:
        args: ``model``, ``output`` (FILE.onnx), ``without_layer``; weights from ``checkpoint`` or ``resume``,
            else the shipped ones of that name in the folder ``weights``.

    Raises:
        ExportError: onnx is not installed, or the file disagrees with PyTorch by more than 1e-4.
        ValueError: ``--output`` is no .onnx file, the weights belong to another model or hand, or there is no layer to
            leave out.
        FileNotFoundError: there are no such weights.
    """
    require_packages()
    output = Path(args.output)
    if output.suffix != ".onnx":
        raise ValueError(f"--phase export writes ONNX, but --output is {output}; give it a name that ends in .onnx")
    writable_file(output, "--output")
    if args.threads:
        torch.set_num_threads(args.threads)
    path = weights_file(args)
    hand, assets = config.hand_model(args, torch.device("cpu"))
    network, card, digest = load_network(path, "cpu", args.model, assets, args.hierarchy)
    has_layer = card.model != "hand_detector" and (card.model != "pose_2d" or says_poses(card))
    if args.without_layer and not has_layer:
        raise ValueError(f"{path}: a {card.model} that says no pose has no hand layer; leave --without_layer out")
    layer = hand if has_layer and not args.without_layer else None
    check_hand(card, assets, path, posed=layer is not None)
    if layer is not None and is_mesh_model(card.model):  # its joints are the mesh's own, by a regressor
        layer = mesh_hand(assets, args.dataset)
    graph = ExportGraph(network, layer, is_told_shape(card) or says_poses(card)).eval()
    notes = {"weights": path.name, "weights_hash": digest, "command": shlex.join(sys.argv), **versions()}
    content = onnx_bytes(graph, card.input_size, metadata(card, graph, assets, notes))
    with atomic_path(output) as temporary:  # a file that disagrees is not left behind
        temporary.write_bytes(content)
        difference = largest_difference(temporary, graph, card.input_size)
        if difference is not None and not difference <= TOLERANCE:
            raise ExportError(f"{output}: would differ from PyTorch by {difference:.2g}; not written")
    checked = "not compared: onnxruntime is not installed" if difference is None else f"{difference:.1g}"
    inputs = ", ".join(graph.inputs)
    logger.info("%s: %s, inputs %s; largest difference to PyTorch: %s", output, card.model, inputs, checked)
    return output


def require_packages() -> None:
    """Raise ExportError, naming the remedy, unless what writes ONNX is installed."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"--phase export needs {' and '.join(missing)}, which this environment lacks: {pip_install_extra('export')}"
        )


def weights_file(args: argparse.Namespace) -> Path:
    """``--checkpoint``, else ``--resume`` (bare: the run's last state), else the shipped weights of the model."""
    if args.checkpoint:
        return Path(args.checkpoint)
    if args.resume:
        return RunFolder(run_path(args)).last if args.resume == "auto" else Path(args.resume)
    shipped = Path(args.weights) / f"{args.model}.safetensors"
    if args.model == "mano_baseline" and not shipped.is_file():
        return shipped.with_name("mano_baseline_conf.safetensors")  # the same network and one branch more
    return shipped


def metadata(card: ModelCard, graph: ExportGraph, assets: HandAssets, notes: dict[str, Any]) -> dict[str, str]:
    """What a user of the file must know, as ONNX metadata (strings): the model card and how to feed it."""
    size = card.input_size
    outputs = graph.named_outputs(*sample_inputs(graph.inputs, size, 1))
    view = (
        f"square around the box of the hand's 2D joints, side {card.crop_scale:g} x the box's, black outside the image"
    )
    if card.crop == "image":
        view = f"the middle of an image cut around the hand as FreiHAND's are, {card.crop_scale / 2:g} of its side"
    said = {
        "card": json.dumps(dataclasses.asdict(card)),
        "model": card.model,
        "with_layer": "yes" if graph.hand is not None else "no",
        "input_size": str(size),
        "normalisation": "RGB, channels first, float32, (x / 255 - 0.5) / 0.5",
        "crop": f"{view}, resampled to {size} px; its edges land on -0.5 and {size - 0.5:g} px; K of the crop = "
        "[affine; 0 0 1] K of the image",
        "side": "right; mirror left hands (image, and K's principal point to W - 1 - cx), mirror results back: x -> -x",
        "frame": "OpenCV camera: x right, y down, z forward",
        "units": "metres, pixels (centres at integers), radians",
        "hand_name": card.hand_name or assets.name,
        "hand_hash": card.hand_hash or assets.hash,
        "inputs": json.dumps({name: INPUTS[name] for name in graph.inputs}),
        "outputs": json.dumps({name: OUTPUTS[name] for name in outputs}),
        "made_by": json.dumps(notes),
    }
    if graph.hand is not None:
        said["joint_definition"] = f"{graph.hand.joint_type}, tips {graph.hand.tips}"
    if card.model == "hand_detector":  # it looks at whole pictures and knows no hand model
        del said["hand_name"], said["hand_hash"], said["frame"]
        numbers = {name: float(getattr(graph.network, name)) for name in ("scale", "offset", "threshold")}
        view = "the whole image in the middle of a square, side its longer one, black outside the image"
        said |= {
            "crop": f"{view}, resampled to {size} px; the square's edges land on -0.5 and {size - 0.5:g} px",
            "side": "both, which are not told apart",
            "units": "pixels (centres at integers)",
            "probability": json.dumps(numbers),
        }
    return said


def onnx_bytes(graph: ExportGraph, input_size: int, notes: dict[str, str]) -> bytes:
    """The ONNX file: the graph traced for any batch size, with ``notes`` as its metadata."""
    import onnx

    tensors = sample_inputs(graph.inputs, input_size, 3)
    names = list(graph.named_outputs(*tensors))
    batch = torch.export.Dim("batch", min=1, max=4096)
    # The exporter warns about its own internals; what counts is checked on the finished file.
    for name in ("onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # strict: `len(tensor)` stays symbolic
        program = torch.export.export(graph, tensors, dynamic_shapes=(tuple({0: batch} for _ in tensors),), strict=True)
        exported = torch.onnx.export(
            program, dynamo=True, input_names=graph.inputs, output_names=names, opset_version=OPSET, verbose=False
        )
    model = exported.model_proto
    _tidy(model)
    onnx.helper.set_model_props(model, notes)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _tidy(model: Any) -> None:
    """Drop the exporter's notes on its own source lines, and call the batch dimension ``batch``."""
    del model.graph.metadata_props[:], model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    # Shapes inside the graph are derived again by whoever runs it.
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


@torch.no_grad()
def largest_difference(path: Path, graph: ExportGraph, input_size: int) -> float | None:
    """Largest difference to PyTorch of any output, over its largest number if that is above 1; batches of 1 and 3.

    None where onnxruntime is not installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    session = open_session(path)
    largest = []
    for batch in (1, 3):
        tensors = sample_inputs(graph.inputs, input_size, batch, seed=batch)
        expected = graph.named_outputs(*tensors)
        feed = {name: tensor.numpy() for name, tensor in zip(graph.inputs, tensors, strict=True)}
        for value, other in zip(session.run(list(expected), feed), expected.values(), strict=True):
            largest.append(np.abs(value - other.numpy()).max() / max(float(other.abs().max()), 1.0))
    return float(np.max(largest))


def open_session(path: Path, threads: int | None = None, batch: int | None = None) -> Any:
    """An onnxruntime session on the CPU with so many threads (default: torch's number), of any batch size or of one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    if batch is not None:
        options.add_free_dimension_override_by_name("batch", batch)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class ExportGraph(nn.Module):
    """A network, and the hand layer after it, as a function of positional tensors.

    Args:
        network: in eval mode. It is made traceable in place: hand layers become plain, constant products gathers.
        hand: layer that turns pose and betas into vertices and joints; None: the network alone. Of a network
            that predicts vertices it gives the joints, by its regressor.
        knows_shape: the network takes the person's betas.
    """

    def __init__(self, network: nn.Module, hand: HandModel | None, knows_shape: bool) -> None:
        super().__init__()
        self.network, self.hand = network, hand
        #: Of anybody's hand: where no betas are given, its own.
        self.completes_betas = knows_shape and getattr(network, "rating", None) is not None
        is_read = {"image": True, "betas": knows_shape, "K": getattr(network, "uses_crop_geometry", False)}
        self.inputs = [name for name, is_input in is_read.items() if is_input]
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
        if self.completes_betas and "betas" in output:
            output["betas_used"] = output["betas"]
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
    K = torch.eye(3).repeat(batch, 1, 1)
    K[:, 0, 0] = K[:, 1, 1] = input_size * (3 + torch.rand(batch, generator=generator))
    K[:, :2, 2] = input_size * torch.rand(batch, 2, generator=generator)
    made = {
        "image": 2 * torch.rand(batch, 3, input_size, input_size, generator=generator) - 1,
        "betas": torch.randn(batch, 10, generator=generator),
        "K": K,
    }
    return tuple(made[name] for name in names)
