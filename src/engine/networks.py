"""From a checkpoint file to a network: one of ours, or a released one that a user already owns."""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from src.engine.checkpoint import (
    ModelCard,
    has_card,
    load_network,
    load_released,
    mesh_parts,
)
from src.engine.run_folder import run_path
from template import HandAssets
from template.assets import STAND_IN_PATH
from utils.artifacts import model_hash

logger = logging.getLogger(__name__)


#: Networks whose checkpoints without a card (docs/facts.md 7.1 to 7.4) do not look at squares of 224 px, cut around the
#: joints: their side, px, and crop. CMR's own were trained on FreiHAND's whole images and find silhouettes.
RELEASED = {
    "boukhayma": (256, "joints"),
    **dict.fromkeys(("cmr_sg", "cmr_pg", "metro", "metro_identity"), (224, "image")),
}


def for_inference(network: nn.Module) -> nn.Module:
    """A copy of a network that gives the same, to rounding, in less time.

    Batch norms become part of the convolutions before them, and images have their channels last.
    """
    quick = copy.deepcopy(network).eval()
    for parent in [module for module in quick.modules() if isinstance(module, nn.Sequential)]:
        for place, (first, second) in enumerate(itertools.pairwise(list(parent))):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                parent[place], parent[place + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return quick.to(memory_format=torch.channels_last)


def open_network(
    args: argparse.Namespace, device: torch.device, assets: HandAssets
) -> tuple[nn.Module, ModelCard, str]:
    """The network of ``--checkpoint`` or ``--resume``; its card and hash.

    ``--resume FILE`` may also be the name of a file in the run's ``checkpoints`` folder.

    Raises:
        ValueError: no checkpoint was given, or one of another network or hand model.
        FileNotFoundError: there is none.
    """
    if not args.checkpoint and args.resume in (None, "auto"):
        raise ValueError(f"--phase {args.phase} needs --checkpoint FILE or --resume FILE (eval: or --predictions FILE)")
    path = Path(args.checkpoint or args.resume)
    in_run = run_path(args) / "checkpoints" / path
    path = in_run if not path.is_file() and in_run.is_file() else path
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint; tried {path} and {in_run}")
    expected = args.model if not args.checkpoint or "--model" in args.given_options else None
    network, card, digest = read_network(path, device, assets, args.model, args.backbone, args.hierarchy, expected)
    backbone = card.options.get("backbone", args.backbone)
    for option, is_its in (
        ("--backbone", args.backbone is None or args.backbone.lower() == backbone),
        ("--hierarchy", args.hierarchy is None or card.model.startswith("cmr")),
    ):
        if not is_its:
            raise ValueError(f"{path}: is a {card.model} with the backbone {backbone}; leave {option} out")
    return network, card, digest


def read_network(
    path: str | Path,
    device: torch.device | str,
    assets: HandAssets,
    model: str,
    backbone: str | None = None,
    hierarchy: str | Path | None = None,
    expected: str | None = None,
) -> tuple[nn.Module, ModelCard, str]:
    """A network in eval mode, its card, and the hash of its weights.

    Args:
        path: ours, with a card, or a released checkpoint without one.
        assets: right hand in use, which must be the one that the network was trained with.
        model, backbone: what a checkpoint without a card is read as.
        hierarchy: as in `mesh_parts`.
        expected: the name that a card must have; None: any.

    Raises:
        FileNotFoundError: there is none. CheckpointError: it is of another network.
        ValueError: of another hand model; names both.
    """
    path = Path(path)
    if not path.is_file() or path.suffix == ".safetensors" or has_card(path):
        network, card, digest = load_network(path, device, expected, assets, hierarchy)
        check_hand(card, assets, path)
        return network, card, digest
    network, built, taken = load_released(path, model, backbone, **mesh_parts(model, assets, hierarchy))
    logger.info("%s: %d tensors taken by %s", path, taken, model)
    if assets.name != "MANO":
        logger.warning("%s: released networks know MANO's hand, in use is the %s (--mano_dir)", path, assets.name)
    if model.startswith("cmr") and hierarchy is None:
        logger.warning("%s: its mesh levels are taken for ours; give its transform.pkl (--hierarchy)", path)
    name = f"{model} without silhouettes" if built.get("with_mask") is False else model
    size, crop = RELEASED.get(name, (224, "joints"))
    card = ModelCard(model, "paper", built, size, size, 2.0, assets.name, assets.hash, crop)
    return network.to(device).eval(), card, model_hash(network.state_dict())


def is_told_shape(card: ModelCard) -> bool:
    """Whether the network is told the person's betas, so that what it says of them is an echo, no evidence."""
    return card.model.endswith("_identity")


def says_poses(card: ModelCard) -> bool:
    """Whether it is a keypoint network with a `PoseHead`: poses of any picture, told the person's betas or not."""
    return bool(card.options.get("poses"))


def is_of_hand(card: ModelCard, assets: HandAssets) -> bool:
    """Whether betas and pose of the network mean what they do for this hand model; of released ones nobody knows."""
    return card.hand_hash in ("", assets.hash)


def check_hand(card: ModelCard, assets: HandAssets, path: str | Path, posed: bool = False) -> None:
    """Refuse a network trained with another hand model than the one in use.

    Args:
        posed: also a keypoint network, whose poses would be taken.

    Raises:
        ValueError: naming both, and the remedy.
    """
    if not is_of_hand(card, assets) and (posed or not card.model.startswith("pose_2d")):
        raise ValueError(
            f"{path} was trained with the hand model {card.hand_name} ({card.hand_hash}); the one in use is "
            f"{assets.name} ({assets.hash}), whose betas and pose mean something else. Train with this hand model, "
            f"or choose the other with --mano_dir (the stand-in: --mano_dir {STAND_IN_PATH})"
        )
