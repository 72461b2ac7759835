"""From options to objects: device, data, hand, network, optimizer, schedule."""

from __future__ import annotations

import argparse
import logging
import math

import torch
from torch import nn

from datasets import build_dataset
from datasets.protocol import SampleDataset
from options.recipes import DEFAULT_MILESTONES, METRO, MILESTONES
from src.engine.checkpoint import ModelCard
from src.models.losses import LossWeights
from src.models.losses_cmr import CmrLoss
from src.models.mesh_joints import is_cascade, is_mesh_model, mesh_hand
from src.models.mesh_objectives import BoukhaymaObjective, MeshObjective, MetroObjective
from src.models.objectives import (
    ConfidenceObjective,
    JointMapObjective,
    KeypointObjective,
    ManoObjective,
    Objective,
    WithinPersonConfidence,
)
from template import HandAssets, HandModel, load_hand_assets

logger = logging.getLogger(__name__)

#: Modules that the fair networks share, which ``--init_from`` mostly brings trained.
BODY = ("backbone", "heatmaps", "feature")


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """Type of mixed precision, None for float32.

    Args:
        amp: "bf16", "fp16" (a GPU's only), "no", or "auto": bf16, but not on CPUs without 512-bit vectors, which only
            imitate it: a step of ResNet-18 takes eleven times as long there, one of a transformer 27 times.
    """
    if amp == "auto" and device.type == "cpu" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    if amp == "fp16" and device.type != "cuda":
        raise ValueError("--amp fp16 needs a GPU; use bf16 or no")
    return {"auto": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16, "no": None}[amp]


def open_dataset(args: argparse.Namespace, split: str, crop_size: int | None, **overrides: object) -> SampleDataset:
    """The data set of the options at a split; ``crop_size`` None: as shards hold it."""
    options = {
        "side": args.side,
        "crop_size": crop_size,
        "cache": args.cache,
        "paper_filter": args.paper_filter,
        "skip_bad": args.skip_bad,
        "allow_missing_subjects": args.allow_missing_subjects,
        "mano_dir": args.mano_dir,
    }
    if args.dataset == "freihand":
        options["crop"] = args.crop or "joints"
    return build_dataset(args.dataset, args.data_root, split, **(options | overrides))


def every_frame(args: argparse.Namespace) -> dict[str, object]:
    """Options of `open_dataset` that give an official result file every sample it must hold."""
    return {"side": "both", "include_invalid": True} if args.submit == "dexycb" else {}


def has_mask(args: argparse.Namespace) -> bool:
    """Whether the network finds silhouettes; the paper's comparison on DexYCB and HUMBI was without."""
    if args.model == "cmr_sg":
        return True
    return is_cascade(args.model, args.backbone) and (args.recipe == "fair" or args.dataset == "freihand")


def hand_model(args: argparse.Namespace, device: torch.device) -> tuple[HandModel, HandAssets]:
    """The right hand layer on the device, and its assets."""
    assets = load_hand_assets(args.mano_dir, side="right")
    return HandModel(assets).to(device), assets


def model_card(args: argparse.Namespace, assets: HandAssets) -> ModelCard:
    options: dict[str, object] = {"backbone": args.backbone.lower()}
    if is_cascade(args.model, args.backbone):
        if "--crop_geometry" in args.given_options:
            raise ValueError(f"--crop_geometry: {args.model} with {args.backbone} is the released cascade, without it")
        options["with_mask"] = has_mask(args)
    elif args.recipe == "fair" and args.model.startswith(("mano", "cmr", "metro")):
        options["crop_geometry"] = args.crop_geometry == "yes"
        if args.blind_decoder:
            options["blind_decoder"] = True
        if args.model == "mano_baseline_conf":
            options["linear_confidence"] = args.confidence == "pairs"
    if args.recipe == "paper" and args.model in METRO:
        options["template_pose"] = "mean"
    return ModelCard(
        args.model,
        args.recipe,
        options,
        input_size=args.input_size,
        crop_size=args.crop_size,
        crop_scale=args.crop_scale,
        hand_name=assets.name,
        hand_hash=assets.hash,
        crop=args.crop or "joints",
    )


def build_objective(args: argparse.Namespace, hand: HandModel, model: nn.Module) -> Objective:
    """What the network ``model`` is trained for."""
    frame = "mano" if args.recipe == "paper" else "wrist"
    if args.model == "hand_detector":
        raise ValueError("--model hand_detector is trained by python -m src.engine.world.train --task detector")
    if args.model in METRO:
        return MetroObjective(mesh_hand(hand.assets, args.dataset, hand.faces.device), args.recipe == "paper")
    if is_mesh_model(args.model):
        device = hand.faces.device
        criterion = CmrLoss(model.hierarchy).to(device)
        return MeshObjective(mesh_hand(hand.assets, args.dataset, device), criterion)
    if args.model == "boukhayma":
        return BoukhaymaObjective(hand, projected=args.recipe == "fair", frame=frame)
    weights = LossWeights.paper() if args.recipe == "paper" else LossWeights()
    if args.model == "pose_2d":
        return KeypointObjective(weights) if args.recipe == "fair" else JointMapObjective()
    if args.model == "mano_baseline_conf":
        pairs = args.recipe == "paper" or args.confidence == "pairs"
        if not pairs and args.dataset == "freihand":
            raise ValueError("--dataset freihand does not say who is in which image; rank any pair: --confidence pairs")
        return ConfidenceObjective() if pairs else WithinPersonConfidence(hand)
    return ManoObjective(hand, weights, frame)


class CosineToAHundredth(torch.optim.lr_scheduler.CosineAnnealingLR):
    """Half a cosine from each group's rate to a hundredth of it; PyTorch's own has one floor for all groups."""

    def get_lr(self) -> list[float]:
        share = 0.01 + 0.99 * (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [share * rate for rate in self.base_lrs]

    _get_closed_form_lr = get_lr


def build_optimizer(
    args: argparse.Namespace, model: nn.Module, steps: int, steps_per_epoch: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Optimizer over what requires gradients and a schedule that is stepped once a batch.

    Args:
        args: ``optimizer``, ``lr``, ``body_lr`` (None: ``lr``), ``weight_decay``, ``schedule``, ``model``.
        steps: batches of the whole training; steps_per_epoch: of an epoch.

    Raises:
        ValueError: a ``body_lr`` for a network without such modules.
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    body = [] if args.body_lr is None else [name for name in trainable if name.split(".")[0] in BODY]
    if args.body_lr is not None and not body:
        raise ValueError(
            f"--body_lr is for networks with modules {', '.join(BODY)} that are trained; {args.model} has none"
        )
    groups = [{"params": [value for name, value in trainable.items() if name not in body]}]
    if body:
        groups.append({"params": [trainable[name] for name in body], "lr": args.body_lr})
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[args.optimizer]
    optimizer = kind(groups, lr=args.lr, weight_decay=args.weight_decay, fused=True)
    if args.schedule == "multistep":
        epochs = MILESTONES.get(args.model, DEFAULT_MILESTONES)
        marks = [steps // 2] if args.model in METRO else [epoch * steps_per_epoch for epoch in epochs]
        if marks[0] >= steps:
            words = "--schedule multistep divides the rate after epochs %s, so not at all in --epochs %d"
            logger.warning(words, " and ".join(map(str, epochs)), steps // steps_per_epoch)
        return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, marks, gamma=0.1)
    if args.schedule == "constant":
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    warmup = max(1, min(300, steps // 20))
    ramp = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, 1.0, warmup)
    fall = CosineToAHundredth(optimizer, max(1, steps - warmup))
    return optimizer, torch.optim.lr_scheduler.SequentialLR(optimizer, [ramp, fall], [warmup])
