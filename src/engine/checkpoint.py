"""Checkpoints: what a network needs to be built again travels with its weights.

Two forms hold the same *card* (model name, recipe, options, input size, crop scale, hand model):

* ``.pt``: a training state (model, optimizer, scheduler, position, random state, arguments, versions);
* ``.safetensors``: weights to ship, the card and any further notes as JSON in the metadata, where ``packed`` names
  the tensors that are stored in few bits (`low_bits`), with shape and bits.

Reading executes nothing (``weights_only=True``).
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from options.command_line import CommandParser, run_command
from options.recipes import METRO
from src.models import build_model
from src.models.mesh_joints import is_cascade, is_mesh_model
from src.models.state_dicts import StateDictError, clean_state_dict, load_strict
from template import HandAssets, HandModel, load_hand_assets
from template.cmr_assets import load_hierarchy
from utils.artifacts import model_hash
from utils.files import atomic_path
from utils.torch_files import CheckpointError, UnreadableCheckpointError, load_harmless, load_shipped

logger = logging.getLogger(__name__)

#: Modules of networks that are their backbone, or hold it.
_BODIES = ("backbone", "backbone1", "backbone2", "backbone3", "feature_extractor", "encoder")


def mesh_parts(model: str, assets: HandAssets | None = None, hierarchy: str | Path | None = None) -> dict[str, Any]:
    """Options of `build_model` that are objects; none for networks that need none.

    Args:
        assets: right hand in use; None for the one that `load_hand_assets` finds.
        hierarchy: as `load_hierarchy`, whose errors pass; None for the levels that belong to the hand.
    """
    if model == "boukhayma":
        return {"hand": assets}
    if not is_mesh_model(model):
        return {}
    assets = load_hand_assets() if assets is None else assets
    if model.startswith("metro"):
        return {"hand": HandModel(assets)}
    parts: dict[str, Any] = {"hierarchy": load_hierarchy(assets, hierarchy)}
    if model == "cmr_identity":
        parts["hand"] = HandModel(assets)
    return parts


@dataclass
class ModelCard:
    """What it takes to build and feed a network."""

    model: str
    recipe: str = "fair"
    options: dict[str, Any] = field(default_factory=dict)
    input_size: int = 96
    crop_size: int = 128
    crop_scale: float = 1.5
    hand_name: str = ""
    hand_hash: str = ""
    crop: str = "joints"  # or "image": how FreiHAND's pictures are cut (datasets/freihand/dataset.py)
    hierarchy_hash: str = ""  # of the mesh levels, where the network has some

    @classmethod
    def read(cls, values: Any, path: str | Path) -> ModelCard:
        """The card in a checkpoint.

        Raises:
            CheckpointError: it lacks the model's name, has entries that this code does not know, or impossible ones.
        """
        known = {entry.name for entry in dataclasses.fields(cls)}
        if not isinstance(values, dict) or "model" not in values or not values.keys() <= known:
            raise CheckpointError(
                f"{path}: its card is no card of this code ({str(values)[:200]}); was it written by a newer version?"
            )
        card = cls(**values)
        sizes = (card.input_size, card.crop_size)
        possible = isinstance(card.options, dict) and all(isinstance(size, int) and 0 < size <= 4096 for size in sizes)
        possible = possible and card.crop in ("joints", "image")
        if not (possible and isinstance(card.crop_scale, (int, float)) and 0 < card.crop_scale <= 2):
            raise CheckpointError(f"{path}: its card holds impossible values ({str(values)[:300]})")
        return card

    def build(self, assets: HandAssets | None = None, hierarchy: str | Path | None = None) -> nn.Module:
        """The network with random weights, float32, for a hand and mesh levels as in `mesh_parts`."""
        parts = mesh_parts(self.model, assets, hierarchy)
        return build_model(self.model, self.recipe, **self.options, **parts).float()


def save_checkpoint(path: str | Path, card: ModelCard, model: nn.Module, **state: Any) -> None:
    """Write a training state atomically: a kill while writing leaves the previous file whole.

    Raises:
        OSError: the disk is full; names the file and the remedy.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:  # PyTorch hides the errors of its own files
        torch.save({"card": dataclasses.asdict(card), "model": model.state_dict(), **state}, handle)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a ``.pt`` training state or a ``.safetensors`` file as one dict with ``card`` and ``model``.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: unreadable, damaged, or without a card (not written by this code).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; train one with run.py --phase train, or see weights/")
    state = load_shipped(path) if path.suffix == ".safetensors" else load_harmless(path)
    if not isinstance(state, dict) or "card" not in state or not isinstance(state.get("model"), dict):
        raise CheckpointError(
            f"{path}: holds no card, so it was not written by this code; see python -m src.engine.checkpoint"
        )
    return state


def load_network(
    path: str | Path,
    device: torch.device | str = "cpu",
    expect: str | None = None,
    assets: HandAssets | None = None,
    hierarchy: str | Path | None = None,
) -> tuple[nn.Module, ModelCard, str]:
    """Build the network of a checkpoint, load it strictly, in eval mode.

    Args:
        expect: model name the caller needs; a baseline with confidence passes for a baseline.
        assets, hierarchy: the hand and the mesh levels, as in `mesh_parts`.

    Returns:
        the network, its card, and the hash of its weights.

    Raises:
        CheckpointError: another model's checkpoint, or weights that do not fit (names them).
    """
    state = read_checkpoint(path)
    card = ModelCard.read(state["card"], path)
    if expect and not (card.model == expect or card.model == f"{expect}_conf"):
        raise CheckpointError(f"{path}: is a {card.model}, but a {expect} is needed")
    card.options.pop("weights", None)
    try:
        with torch.random.fork_rng(devices=[]):  # what it begins with is replaced: the caller's numbers stay his
            model = card.build(assets, hierarchy)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its card describes no network of this code ({error})") from error
    own_hash = getattr(model, "hierarchy_hash", "")
    if card.hierarchy_hash and own_hash != card.hierarchy_hash:
        raise CheckpointError(
            f"{path}: was trained on mesh levels {card.hierarchy_hash}, these are {own_hash}: its spirals and poolings "
            "would mean something else. Give the levels it was trained with (--hierarchy), or the same --mano_dir"
        )
    load_strictly(model, state["model"], path)
    return model.to(device).eval(), card, model_hash(model.state_dict())


def load_strictly(model: nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> int:
    """Load every tensor by name and say how many.

    Raises:
        CheckpointError: naming what is missing, left over, misshapen or not finite (such a network sees no hand).
    """
    try:
        taken = load_strict(model, state)
    except StateDictError as error:
        raise CheckpointError(f"{path}: {error}") from error
    refuse_not_finite(model.state_dict(), path)
    return taken


def refuse_not_finite(state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Raise CheckpointError for weights of ``path`` that are NaN or infinite."""
    numbers = {name: value for name, value in state.items() if value.is_floating_point()}
    if bad := [name for name, value in numbers.items() if not bool(torch.isfinite(value).all())]:
        raise CheckpointError(
            f"{path}: NaN or infinity in {bad[0]} ({len(bad)} of {len(numbers)} tensors): its training diverged, or "
            "the file is damaged; take an earlier checkpoint"
        )


def initialise_from(
    model: nn.Module,
    path: str | Path,
    parts: Sequence[str] | None = None,
    card: ModelCard | None = None,
    frozen: bool = False,
    hand: HandAssets | None = None,
) -> list[str]:
    """Copy the weights that ``model`` shares by name with another network's checkpoint.

    ``parts`` limits it to these modules, such as ``["backbone", "heatmaps"]``; the rest stays fresh. ``card``: of
    ``model``. ``frozen``: what is taken is not trained any more; it must have been trained for the same input and hand.
    ``hand``: of ``model``; what was trained for another is named in a warning.

    Heads that only one of the two has (shape head, confidence branch, the shape path that starts
    at zero) stay as they are and are named in the log.

    Returns:
        names of the tensors that do.

    Raises:
        CheckpointError: a shared name has another shape, another backbone, nothing is shared (of one of ``parts``),
            weights that are not finite, or, if ``frozen``, another input or hand than ``card`` has, or not all of it.
    """
    read, own = read_checkpoint(path), model.state_dict()
    state, theirs = read["model"], ModelCard.read(read["card"], path)
    refuse_not_finite(state, path)
    for name in ("recipe", "input_size", "crop_scale", "crop", "hand_hash") if frozen else ():
        if getattr(theirs, name) != getattr(card, name):
            raise CheckpointError(
                f"{path}: its {name} is {getattr(theirs, name)}, here {getattr(card, name)}: what stays as it was "
                "trained needs the same (--input_size, --crop_scale, --recipe, --mano_dir)"
            )
    if unknown := set(parts or ()) - {name.split(".")[0] for name in state if name in own}:
        raise CheckpointError(f"{path}: shares no module {', '.join(sorted(unknown))} with this model (--init_parts)")
    shared = {
        name: value for name, value in state.items() if name in own and (parts is None or name.split(".")[0] in parts)
    }
    misshapen = [name for name in shared if shared[name].shape != own[name].shape]
    bodies = [each.options.get("backbone") for each in (theirs, card or theirs)]
    is_other = None not in bodies and bodies[0] != bodies[1]
    told = f" (its backbone is {bodies[0]}, here {bodies[1]}: --backbone)" if is_other else ""
    is_other &= any(name.split(".")[0] in _BODIES for name in shared)  # a ResNet-34 has all names of a ResNet-18
    if not shared or misshapen or is_other:
        raise CheckpointError(
            f"{path}: cannot initialise this model: shares {len(shared)} tensors, misshapen {misshapen[:5]}{told}"
        )
    fresh = [name for name in own if name not in shared]
    lacking = sorted({name.split(".")[0] for name in fresh} - {"confidence", "conf_branch"})
    if frozen and card and lacking:
        raise CheckpointError(
            f"{path}: gives no {', '.join(lacking)} of {card.model}, which are not trained and would stay random: "
            "give a whole mano_baseline (without --init_parts)"
        )
    model.load_state_dict(shared, strict=False)
    of_hand = {name.split(".")[0] for name in shared} - {"backbone", "heatmaps"}
    levels = getattr(model, "hierarchy_hash", "")
    if levels and theirs.hierarchy_hash not in ("", levels) and of_hand:
        logger.warning(
            "%s was trained on other mesh levels (%s, here %s): its %s start from there, where they mean something "
            "else (--init_parts backbone leaves them out)",
            path, theirs.hierarchy_hash, levels, ", ".join(sorted(of_hand)),
        )  # fmt: skip
    if hand is not None and theirs.hand_hash not in ("", hand.hash) and of_hand:
        logger.warning(
            "%s was trained for the hand model %s (%s), this network is for %s (%s): its %s start from there "
            "(--init_parts backbone heatmaps leaves them out)",
            path, theirs.hand_name, theirs.hand_hash, hand.name, hand.hash, ", ".join(sorted(of_hand)),
        )  # fmt: skip
    modules = ", ".join(sorted({name.rsplit(".", 1)[0] for name in fresh}))
    logger.info("initialised %d tensors from %s; fresh: %s", len(shared), path, modules or "none")
    return fresh


def load_owned(path: str | Path, model: nn.Module) -> int:
    """Load a checkpoint that other code wrote (of the paper, CMR) strictly into ``model``; says how many tensors.

    Args:
        path: file of a state dict, bare or wrapped, with or without ``module.`` before its names.
        model: of `build_model` with ``recipe="paper"``.

    Raises:
        FileNotFoundError, CheckpointError: as `load_network`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        state = clean_state_dict(load_harmless(path))
        if hasattr(model, "translate_released"):
            state = model.translate_released(state)
    except StateDictError as error:
        raise CheckpointError(f"{path}: cannot be read as a state dict of {type(model).__name__} ({error})") from error
    return load_strictly(model, state, path)


def load_released(
    path: str | Path, model: str, backbone: str | None = None, **parts: Any
) -> tuple[nn.Module, dict[str, Any], int]:
    """A checkpoint that other code wrote as the network ``model``, in whichever of its released forms it fits.

    Args:
        parts: of `mesh_parts`.

    Returns:
        the network, the options that it was built with, and how many tensors it took.

    Raises:
        FileNotFoundError, CheckpointError: as `load_owned`.
    """
    options: dict[str, Any] = {"backbone": backbone.lower()} if backbone else {}
    if model in METRO:
        options["template_pose"] = "mean"
    forms = [options]
    if is_cascade(model, options.get("backbone", "resnet18")):  # the file says by its tensors which of the two it is
        forms.append({**options, "with_mask": False})
    failures = []
    for built in forms:
        network = build_model(model, "paper", **built, **parts)
        try:
            return network, built, load_owned(path, network)
        except UnreadableCheckpointError:
            raise
        except CheckpointError as error:
            failures.append(error)
    raise CheckpointError(f"{failures[0]}. Is it a {model} (--model) with this --backbone?") from failures[0]


def main() -> int:
    """``python -m src.engine.checkpoint FILE --model NAME``: load strictly, say how many tensors it took."""
    parser = CommandParser("Load a checkpoint strictly into a model and say what it took.")
    parser.add_argument("file")
    parser.add_argument("--model", required=True, help="e.g. mano_baseline, cmr_sg")
    parser.add_argument("--backbone", help="ResNet18 or ResNet50 (default: the model's own)")
    parser.add_argument("--mano_dir", help="folder of the hand model (default: as in run.py)")
    parser.add_argument("--hierarchy", help="of cmr networks: transform.pkl of a CMR checkout, their mesh levels")

    def work(args: argparse.Namespace) -> None:
        assets = load_hand_assets(args.mano_dir)
        if not args.model.startswith("cmr"):
            parser.refuse_unused(args, args.given_options - {"--hierarchy"}, f"--model {args.model}")
        if Path(args.file).suffix == ".safetensors" or has_card(args.file):
            parser.refuse_unused(args, args.given_options - {"--backbone"}, f"{args.file}, which names its own,")
            count = len(load_network(args.file, "cpu", args.model, assets, args.hierarchy)[0].state_dict())
        else:
            parts = mesh_parts(args.model, assets, args.hierarchy)
            count = load_released(args.file, args.model, args.backbone, **parts)[2]
        print(f"{args.file}: {count} tensors taken by {args.model}")

    return run_command(parser, work)


def has_card(path: str | Path) -> bool:
    """Whether a file is a checkpoint of this code, with a card."""
    try:
        return "card" in read_checkpoint(path)
    except CheckpointError:
        return False


if __name__ == "__main__":
    sys.exit(main())
