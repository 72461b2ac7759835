"""Run a network over a data set and keep what it says, one row a sample."""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from datasets.augment import prepare_batch
from datasets.loading import BatchLoader
from datasets.protocol import SampleDataset
from src.engine import config
from src.engine.checkpoint import ModelCard
from src.engine.distributed import DistributedContext, init_distributed, process_group
from src.engine.measure import count_hands
from src.engine.networks import check_hand, is_of_hand, is_told_shape, open_network, says_poses
from src.models.mesh_joints import is_mesh_model, mesh_hand, mesh_joints
from src.models.mesh_objectives import boukhayma_keypoints
from src.personalization.fitting.from_keypoints import ray_turn
from src.personalization.registration.register import register_mesh
from src.personalization.shape_source import load_identities
from template import HandAssets, HandModel, load_hand_assets
from utils.artifacts import Predictions, save_predictions
from utils.device import choose_device
from utils.files import writable_file

logger = logging.getLogger(__name__)

#: Data sets whose unannotated samples are predicted too: their official evaluation parts publish no annotation.
WHOLE_SETS = ("freihand", "ho3d")
ALONE = DistributedContext()
ROWS = ("image_id", "subject_id", "sequence_id", "is_left")


class ShapeSource:
    """Which betas an identity-aware network is told for a batch.

    Args:
        kind: ``gt`` (the annotation), ``mean`` (zeros) or ``calibrated`` (identity files).
        identity: for ``calibrated``: one identity file, used for everybody, or a folder with
            ``identity_subject-NN.json``.
        assets: the hand model in use; identities of another are refused.

    Raises:
        ValueError: unknown kind, or no identity where one is needed.
    """

    def __init__(self, kind: str, identity: str | Path | None = None, assets: HandAssets | None = None) -> None:
        if kind not in ("gt", "mean", "calibrated"):
            raise ValueError(f"--shape {kind} means nothing to an identity-aware network; use gt, mean or calibrated")
        if kind == "calibrated" and identity is None:
            raise ValueError("--shape calibrated needs --identity FILE_OR_FOLDER (calibrate_from_shape_params.py)")
        self.kind, self.identity, self.assets = kind, identity, assets
        self._read: dict[int, np.ndarray] = {}

    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Betas (B, 10) for a batch."""
        betas = batch["betas"]
        if self.kind != "calibrated":
            return betas if self.kind == "gt" else torch.zeros_like(betas)
        subjects = batch["subject_id"].tolist()
        for subject in set(subjects) - self._read.keys():
            self._read[subject] = load_identities(self.identity, np.array([subject]), self.assets)[subject].betas
        return torch.as_tensor(np.stack([self._read[one] for one in subjects]), dtype=betas.dtype, device=betas.device)


@torch.no_grad()
def predict_dataset(
    model: nn.Module,
    card: ModelCard,
    dataset: SampleDataset,
    device: torch.device,
    shape: ShapeSource | None = None,
    batch_size: int = 64,
    model_hash: str = "",
    dataset_name: str = "dex_ycb",
    max_samples: int | None = None,
    num_workers: int = 0,
    progress: bool = True,
    assets: HandAssets | None = None,
    drop_invalid: bool = True,
    context: DistributedContext = ALONE,
) -> Predictions | None:
    """Predict every sample of a data set, in its order, without augmentation.

    Args:
        model, card: of `load_network`; device: where the model is.
        shape: what an identity-aware network is told (default: the annotation), and one of `says_poses` (default:
            nothing).
        batch_size: samples at once; the result does not depend on it beyond rounding.
        model_hash, dataset_name: kept with the predictions.
        max_samples: as many samples, evenly spread.
        assets: right hand in use, whose regressor gives the joints of meshes; None: as `load_hand_assets` finds.
        drop_invalid: leave out samples without annotation. Official files need them.
        context: processes that share the samples, each predicted by one of them.

    Returns:
        all predictions; in processes that do not lead, None.

    Raises:
        ValueError: nothing to predict, or annotated shapes wanted where there are none.
    """
    loader = BatchLoader(
        dataset,
        batch_size,
        max_samples=max_samples,
        num_workers=num_workers,
        drop_invalid=drop_invalid,
        rank=context.rank,
        world_size=context.world_size,
    )
    rows: dict[str, list[np.ndarray]] = defaultdict(list)
    is_told = is_told_shape(card) or (says_poses(card) and shape is not None)
    shape = shape or ShapeSource("gt")
    if is_told and shape.kind == "gt" and not dataset.columns["valid"].any():
        raise ValueError(f"{dataset.root} has no annotated shapes here; give --identity FILE or --shape mean")
    assets = assets or load_hand_assets()
    unposed = says_poses(card) and not is_of_hand(card, assets)  # its keypoints serve with any hand
    hand = mesh_hand(assets, dataset_name, device) if is_mesh_model(card.model) else None
    kinematic = HandModel(assets).to(device) if card.model == "boukhayma" else None
    for raw in tqdm(loader, desc=f"predict {card.model}", disable=not (progress and context.is_main), mininterval=1):
        batch = prepare_batch(raw, card.input_size, device, crop_scale=card.crop_scale)
        known = {"K": batch["K"]} | ({"betas": shape(batch)} if is_told else {})
        output = model(batch["image"], **known)
        if says_poses(card):  # of a camera turned to the hand
            turn = ray_turn(batch["K"], output["keypoints_2d"].mean(dim=1))
            output["pose"] = torch.cat([turn[:, None] @ output["pose"][:, :1], output["pose"][:, 1:]], dim=1)
        for name in ROWS:
            rows[name].append(raw[name].numpy())
        rows["readable"].append(raw.get("readable", torch.ones_like(raw["valid"])).numpy())
        rows["K"].append(raw["K_image"].numpy())
        for name in ("pose", "betas", "confidence", "keypoint_confidence"):
            if output.get(name) is not None and not (unposed and name in ("pose", "betas")):
                rows[name].append(output[name].float().cpu().numpy())
        if "camera" in output and card.recipe == "fair":  # the paper's comparison left its camera untrained
            output["keypoints_2d"] = boukhayma_keypoints(output, batch["image"].shape[-1], kinematic)
        if "keypoints_2d" in output:
            affine = batch["crop_to_image"]  # from px of the network's input to px of the full image
            keypoints = output["keypoints_2d"] @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]
            rows["keypoints_2d"].append(keypoints.cpu().numpy())
            if hand is not None:
                for name, value in mesh_rows(output, keypoints, batch, hand).items():
                    rows[name].append(value)
    shares = context.gather({name: np.concatenate(parts) for name, parts in rows.items()})
    if shares is None:
        return None
    if not any(shares):
        raise ValueError("the split holds no usable sample; check --data_root, --split and --side")
    arrays = merge_shares(shares, dataset)
    readable = arrays["readable"]
    if readable.all():
        del arrays["readable"]
    else:
        logger.warning(
            "%d of %d pictures could not be read; black ones were predicted", (~readable).sum(), len(readable)
        )
    count_hands(arrays.get("status"))
    return Predictions(
        **arrays,
        model_name=f"{card.model}_identity" if is_told and says_poses(card) else card.model,
        model_hash=model_hash,
        hand_name=card.hand_name,
        hand_hash=card.hand_hash,
        dataset=dataset_name,
        split=dataset.split,
        joint_definition="" if hand is None else f"{hand.joint_type}, tips {hand.tips}",
    )


def mesh_rows(
    output: dict[str, torch.Tensor], keypoints: torch.Tensor, batch: dict[str, torch.Tensor], hand: HandModel
) -> dict[str, np.ndarray]:
    """``vertices``, ``joints``, ``root`` and its ``status`` of a batch (`utils.artifacts.Predictions`).

    Args:
        output: of a network of meshes; its ``mask``, if there is one, helps to find the place.
        keypoints: (B, 21, 2) its keypoints, px of the full image.
        batch: of `prepare_batch`; ``K_image``, ``crop_to_image`` and ``image`` are read.
        hand: layer whose regressor gives the mesh's joints.
    """
    vertices = output["vertices"].float()
    joints = mesh_joints(vertices, hand)
    vertices, joints = vertices - joints[:, :1], joints - joints[:, :1]
    mask = output.get("mask")
    found = register_mesh(
        vertices,
        joints,
        batch["K_image"],
        keypoints,
        output["keypoint_confidence"],
        None if mask is None else mask[:, 0].float(),
        mask_to_image=None if mask is None else _map_to_image(batch, mask.shape[-1]),
    )
    rows = {"vertices": vertices, "joints": joints, "root": found.transl, "status": found.status}
    return {name: value.cpu().numpy() for name, value in rows.items()}


def _map_to_image(batch: dict[str, torch.Tensor], map_size: int) -> torch.Tensor:
    """Affines (B, 2, 3) from px of a map of that side to px of the full image (pixel centres at integers)."""
    scale = batch["image"].shape[-1] / map_size
    affine = batch["crop_to_image"]
    linear, shift = affine[:, :, :2] * scale, affine[:, :, 2] + affine[:, :, :2].sum(2) * (0.5 * scale - 0.5)
    return torch.cat([linear, shift[..., None]], dim=2)


def merge_shares(shares: list[dict[str, np.ndarray]], dataset: SampleDataset) -> dict[str, np.ndarray]:
    """The rows of all processes as one, in the order of the data set."""
    shares = [share for share in shares if share]  # a small split may leave a process without a sample
    arrays = {name: np.concatenate([share[name] for share in shares]) for name in shares[0]}
    if len(shares) == 1:
        return arrays
    place = {int(number): row for row, number in enumerate(dataset.columns["image_id"])}
    order = np.argsort([place[int(number)] for number in arrays["image_id"]])
    return {name: values[order] for name, values in arrays.items()}


def predict(args: argparse.Namespace) -> Predictions | None:
    """``run.py --phase predict``: load the checkpoint, predict the split, write the npz if asked to.

    Under torchrun the processes share the samples, and the leading one gets and writes the predictions
    (the others return None).

    Raises:
        ValueError: no checkpoint, or one of another hand model.
    """
    is_phase = args.phase == "predict"  # else --phase eval, which need not write predictions
    if is_phase and not args.predictions:
        raise ValueError("--phase predict needs --predictions FILE.npz to write")
    if args.predictions:
        writable_file(args.predictions, "--predictions")  # before the work, not after it
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    model, card, digest = open_network(args, device, assets)
    split = args.split or f"{args.setup}_test"
    args.crop = args.crop or card.crop
    is_told = is_told_shape(card) or (says_poses(card) and args.shape not in (None, "predicted"))
    if not is_told and args.shape not in (None, "predicted"):
        raise ValueError(f"--shape {args.shape} has no effect on a {card.model}, which is told no shape; leave it out")
    if is_told and says_poses(card):
        check_hand(card, assets, args.checkpoint or args.resume, posed=True)
    if args.identity and args.shape != "calibrated" and (is_phase or (is_told and args.shape is None)):
        raise ValueError("--identity is told to the network with --shape calibrated; give that too, or leave it out")
    shape = ShapeSource(args.shape or "gt", args.identity, assets) if is_told else None
    with process_group():
        context = init_distributed(device)
        with context.local_main_first():
            dataset = config.open_dataset(args, split, args.crop_size or card.crop_size, **config.every_frame(args))
        if args.shape == "calibrated":  # of the side, before the work
            load_identities(args.identity, dataset.columns["subject_id"], assets, dataset.columns["is_left"])
        predictions = predict_dataset(
            model,
            card,
            dataset,
            device,
            shape,
            args.batch_size or 64,
            digest,
            args.dataset,
            args.max_images,
            args.num_workers,
            assets=assets,
            drop_invalid=args.dataset not in WHOLE_SETS and not args.submit,
            context=context,
        )
    if args.predictions and predictions is not None:
        save_predictions(args.predictions, predictions)
        logger.info("%d predictions of %s written to %s", len(predictions), card.model, args.predictions)
    return predictions
