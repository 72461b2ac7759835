"""The main demo's page: a few of its pictures, each beside the hand fitted with the calibrated identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from src.engine.demo.pictures import pictured_rows
from src.engine.evaluate import hand_points
from src.photos.gallery import Gallery
from src.photos.result import HandLength, Result, Sources
from template import HandModel
from utils.artifacts import Identity, Predictions
from utils.camera import project_numpy, square_box

_SOURCES = Sources("of the synthetic data set", "around its 2D keypoints", "of the data set", "pose_2d")


def write_gallery(
    output: Path, dataset: Any, fitted: Predictions, identities: dict[int, Identity], hand: HandModel, count: int
) -> None:
    """Write ``index.html``, ``predictions.json`` and each picture's plot and meshes.

    Args:
        output: the demo's folder; dataset: that the rows come from.
        fitted: right hands with translation and keypoints, made with ``identities`` (by subject number).
        hand: the hand layer; count: pictures, evenly spread, as in `demo_pictures.write_pictures`.
    """
    people = ", ".join(f"subject-{number:02d} {length_of(one).mm:.0f} mm" for number, one in identities.items())
    about = {
        "model": {"name": fitted.model_name, "hash": fitted.model_hash},
        "hand_model": {"name": hand.assets.name, "hash": hand.assets.hash},
        "identity": {f"subject-{number:02d}": length_of(one).as_json() for number, one in identities.items()},
    }
    lead = f"Synthetic pictures of people whom no network has seen, with the shape calibrated for each: {people}."
    index = {int(image): row for row, image in enumerate(dataset.columns["image_id"])}
    with Gallery(output, "Unseen people, each with their own hand", lead, about) as gallery:
        for row in pictured_rows(len(fitted), count):
            image_id, subject = int(fitted.image_id[row]), int(fitted.subject_id[row])
            name = f"subject-{subject:02d}_{image_id:06d}"
            image = dataset.full_image(index[image_id])
            result = fitted_hand(fitted, int(row), hand, image.shape[1], length_of(identities[subject]))
            gallery.add(name, name, image, result)


def length_of(identity: Identity) -> HandLength:
    """Hand length of an identity."""
    source = f"{identity.n_images} unlabelled images of this person ({identity.method})"
    return HandLength(identity.hand_length_mm, identity.hand_length_std_mm, source)


def fitted_hand(fitted: Predictions, row: int, hand: HandModel, width: int, length: HandLength) -> Result:
    """One row of fitted predictions as a hand in its picture of ``width`` px."""
    joints, vertices = hand_points(hand, fitted.pose[[row]], fitted.betas[[row]], fitted.transl[[row]])
    K, keypoints = fitted.K[row].astype(np.float64), fitted.keypoints_2d[row]
    confidence = fitted.keypoint_confidence[row]
    squared = np.square(project_numpy(joints[0].astype(np.float64), K) - keypoints).sum(axis=1)
    rms = float(np.sqrt((confidence * squared).sum() / max(float(confidence.sum()), 1e-9)))
    return Result(
        width, K, square_box(keypoints, 1.0), keypoints, confidence, vertices[0], joints[0], hand.assets, rms,
        fitted.pose[row], fitted.transl[row], fitted.betas[row], length, sources=_SOURCES,
    )
