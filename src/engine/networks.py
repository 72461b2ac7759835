"""From ``--checkpoint`` or ``--resume`` to a network: one of ours, or one that a user already owns."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.engine.checkpoint import CheckpointError, ModelCard, has_card, load_network, load_owned
from src.engine.mesh_parts import mesh_parts
from src.engine.run_folder import run_path
from src.models import build_model
from src.models.keypoint_views import VIEWS
from src.models.mesh_joints import is_cascade
from template import HandAssets
from utils.artifacts import model_hash

logger = logging.getLogger(__name__)

#: Network inputs of the released code, px, where it is not 224.
OWNED_INPUT = {"boukhayma": 256}


def open_network(
    args: argparse.Namespace, device: torch.device, assets: HandAssets
) -> tuple[nn.Module, ModelCard, str]:
    """The network of ``--checkpoint`` or ``--resume``, ours or one that other code wrote; its card and hash.

    ``--resume FILE`` may also be the name of a file in the run's ``checkpoints`` folder. A checkpoint without a
    card is read as the released code's ``--model``, with its input size and view of the image.

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
    if path.suffix == ".safetensors" or has_card(path):
        expected = args.model if not args.checkpoint else None
        model, card, digest = load_network(path, device, expected, assets, args.hierarchy)
        check_hand(card, assets, path)
        _set_views(model, card, args)
        return model, card, digest
    options: dict[str, Any] = {"backbone": args.backbone.lower()} if args.backbone else {}
    size = OWNED_INPUT.get(args.model, 224)
    whole = args.dataset == "freihand" and is_cascade(args.model, options.get("backbone", "resnet18"))
    card = ModelCard(args.model, "paper", options, size, size, 2.0, crop="image" if whole else "joints")
    model = build_model(args.model, "paper", **options, **mesh_parts(args.model, assets, args.hierarchy))
    try:
        taken = load_owned(path, model)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Is it a {args.model} (--model) with this --backbone?") from error
    logger.info("%s: %d tensors taken by %s", path, taken, args.model)
    card.hand_name, card.hand_hash = assets.name, assets.hash
    return model.to(device).eval(), card, model_hash(model.state_dict())


def _set_views(model: nn.Module, card: ModelCard, args: argparse.Namespace) -> None:
    """How many views of an image a network of 2D keypoints averages over (``--keypoint_views``).

    Raises:
        ValueError: it is another network, or there are not so many views.
    """
    views = getattr(args, "keypoint_views", None)
    if views is None:
        return
    if card.model != "pose_2d" or card.recipe != "fair":
        raise ValueError(f"--keypoint_views is for pose_2d networks of the fair recipe, not {card.model}")
    if not 1 <= views <= len(VIEWS):
        raise ValueError(f"--keypoint_views is {views}; choose 1 to {len(VIEWS)}")
    model.views = views


def check_hand(card: ModelCard, assets: Any, path: str | Path) -> None:
    """Refuse a network trained with another hand model than the one in use.

    Raises:
        ValueError: naming both, and the remedy.
    """
    if card.hand_hash and card.hand_hash != assets.hash and not card.model.startswith("pose_2d"):
        raise ValueError(
            f"{path} was trained with the hand model {card.hand_name} ({card.hand_hash}); the one in use is "
            f"{assets.name} ({assets.hash}), whose betas and pose mean something else. Train with this hand model, "
            "or choose the other with --mano_dir"
        )
