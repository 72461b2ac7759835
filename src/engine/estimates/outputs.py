"""What ``run.py --phase personalise`` leaves in its folder."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.estimators import write_estimates
from src.personalization.estimates.personalise import Personalised
from src.personalization.solver.status import Status, usable
from src.personalization.terms.hand_size import describe_lengths
from src.photos.gallery import PAGE, PREDICTIONS, Gallery
from src.photos.image import UnusableImage, read_photo
from src.photos.result import HandLength, Result, Sources
from template import HandAssets, HandModel
from utils.artifacts import Identity, Predictions, save_identity, save_predictions
from utils.files import write_text

logger = logging.getLogger(__name__)

#: Side of the box around the keypoints.
_MARGIN = 1.2
_SUFFIXES = ("", ".jpg", ".jpeg", ".png", ".JPG")


def write_outputs(
    args: argparse.Namespace,
    output: Path,
    read: Predictions,
    found: Personalised,
    assets: HandAssets,
    read_options: dict[str, Any],
) -> None:
    """Write into ``output``: their files again (``estimates/``, and changed.txt with what was changed), rows.npz,
    predictions.json, and index.html where the pictures are there.

    Args:
        read: the hands as they were read; found: personalised, row by row.
    """
    source = Path(args.estimates)
    target = output / "estimates"
    lines = write_estimates(
        target if source.is_dir() else target / source.name, found.released, source, args.format, **read_options
    )
    write_text(output / "changed.txt", "\n".join(lines) + "\n")
    save_predictions(output / "rows.npz", found.rows)
    hands = results(read, found, assets)
    title = f"{args.format}'s hands, personalised"
    lead = f"Hand model {assets.name}; one shape a person, laid on the keypoints of {args.format}."
    about = {"estimator": args.format, "hand_model": {"name": assets.name, "hash": assets.hash},
             "identities": {str(n): describe_lengths(one, assets) for n, one in found.identities.items()}}  # fmt: skip
    labels: Counter[str] = Counter()
    with Gallery(output, title, lead, about, plots=False) as gallery:
        for row, hand in enumerate(hands):
            name = str(found.rows.image_name[row]) if found.rows.image_name is not None else f"image {row}"
            label = f"{Path(name).stem}_{hand.side}"
            labels[label] += 1  # several people in a picture, or pictures of one name in several folders
            label += f"_{labels[label]}" * (labels[label] > 1)
            if not bool(usable(torch.as_tensor(found.rows.status[row : row + 1]))[0]):
                gallery.fail(label, name, Status(int(found.rows.status[row])).name.lower().replace("_", " "))
                continue
            picture = _picture(args.images, name)
            if picture is None:
                gallery.note(label, name, hand)
            else:
                gallery.add(label, name, picture, hand)
    logger.info("%d hands written to %s (%s, %s)", len(hands), output, PAGE, PREDICTIONS)


def write_identities(output: Path, identities: dict[int, Identity], calibrated: bool) -> None:
    """The identities that were calibrated on the way."""
    if calibrated:
        for subject, identity in identities.items():
            save_identity(output / f"identity_subject-{subject:02d}.json", identity)


def results(read: Predictions, found: Personalised, assets: HandAssets) -> list[Result]:
    """Every hand in its own picture's frame, left hands left."""
    rows, hands = found.rows, []
    posed = HandModel(assets, dtype=torch.float64)(
        *(torch.as_tensor(value).double() for value in (rows.pose, rows.betas, rows.transl))
    )
    for row in range(len(rows)):
        subject = int(rows.subject_id[row])
        identity = found.identities.get(subject) or next(iter(found.identities.values()))
        pixels = read.keypoints_2d[row].astype(np.float64)
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        confidence = np.ones(21) if read.keypoint_confidence is None else read.keypoint_confidence[row]
        width = int(round(2 * rows.K[row, 0, 2])) if rows.image_size is None else int(rows.image_size[row, 0])
        std = identity.hand_length_std_mm
        hand = Result(
            width=width,
            K=rows.K[row].astype(np.float64),
            box=np.array([*((low + high) / 2), _MARGIN * (high - low).max()]),
            keypoints=pixels,
            confidence=confidence,
            vertices=posed.vertices[row].numpy(),
            joints=found.joints[row],
            assets=assets,
            reprojection_px=float(found.reprojection_px[row]),
            pose=rows.pose[row],
            transl=rows.transl[row],
            betas=rows.betas[row],
            length=HandLength(identity.hand_length_mm, std, f"identity ({identity.scale_evidence})"),
            sources=Sources(read.camera, read.model_name, read.model_name, read.model_name),
            notes={"subject": subject},
        )
        hands.append(hand.mirrored() if rows.is_left[row] else hand)
    return hands


def _picture(folder: str | None, name: str) -> np.ndarray | None:
    if folder is None:
        return None
    for suffix in _SUFFIXES:
        path = Path(folder) / f"{name}{suffix}"
        if path.is_file():
            try:
                return read_photo(path, path.stem).image
            except UnusableImage as error:
                logger.warning("%s: %s; it is not on the page", path, error)
                return None
    logger.warning("%s is not in %s; it is not on the page", name, folder)
    return None
