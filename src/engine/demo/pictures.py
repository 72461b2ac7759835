"""Pictures, meshes and page of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from src.engine.demo.report import Variant
from src.evaluation.shape import rest_hand
from src.personalization.terms.hand_size import Length, lengths_mm
from src.photos.gallery import Gallery
from src.photos.result import HandLength, Result, Sources
from template import HandModel
from template.sides import hand_points
from utils.artifacts import Identity, Predictions
from utils.camera import project_numpy, square_box
from utils.drawing.figures import HandView, ShapeView, demo_figure, identity_figure
from utils.drawing.overlay import ANONYMOUS_COLOUR, IDENTITY_COLOUR
from utils.mesh_io import write_mesh

_SOURCES = Sources("of the synthetic data set", "around its 2D keypoints", "of the data set", "pose_2d")


def write_pictures(
    output: Path,
    dataset: Any,
    variants: dict[str, Variant],
    identities: dict[int, Identity],
    hand: HandModel,
    truth: dict[str, np.ndarray],
    count: int,
) -> None:
    """For ``count`` images a figure and a PLY of the fitted hand; for each subject a figure of the shapes.

    Args:
        output: the demo's folder; files go to ``pictures/`` and ``meshes/``.
        dataset: that the variants' rows come from.
        variants: baseline and identity_calibrated, alike in rows.
        identities: by subject number.
        hand: the hand layer.
        truth: annotations of the rows.
        count: images to draw, evenly spread.
    """
    anonymous, personal = variants["baseline"].fitted, variants["identity_calibrated"].fitted
    faces = hand.faces.cpu().numpy()
    index = {int(image): row for row, image in enumerate(dataset.columns["image_id"])}
    for row in pictured_rows(len(personal), count):
        views = []
        for title, fitted, colour in (
            ("without identity", anonymous, ANONYMOUS_COLOUR),
            ("with identity", personal, IDENTITY_COLOUR),
        ):
            joints, vertices = hand_points(hand, fitted.pose[[row]], fitted.betas[[row]], fitted.transl[[row]])
            scores = variants["baseline" if fitted is anonymous else "identity_calibrated"].fitted_scores
            views.append(HandView(title, vertices[0], joints[0], float(scores.per_sample["mpvpe_mm"][row]), colour))
        _, true_vertices = hand_points(hand, truth["pose"][[row]], truth["betas"][[row]], truth["transl"][[row]])
        image_id = int(personal.image_id[row])
        name = f"subject-{personal.subject_id[row]:02d}_{image_id:06d}"
        image, K = dataset.full_image(index[image_id]), personal.K[row].astype(np.float64)
        demo_figure(
            output / "pictures" / f"{name}.jpg",
            image,
            K,
            faces,
            views,
            box=square_box(project_numpy(true_vertices[0], K), 1.3),
            keypoints_2d=personal.keypoints_2d[row],
            keypoint_confidence=personal.keypoint_confidence[row],
            true_vertices=true_vertices[0],
            title=f"unseen subject {personal.subject_id[row]:02d}, image {image_id} (synthetic; white: true outline)",
        )
        write_mesh(output / "meshes" / f"{name}.ply", views[1].vertices, faces)
    for subject, identity in identities.items():
        betas = np.stack([dataset.subject_betas[subject], identity.betas, np.zeros(10)])
        vertices, joints = rest_hand(hand, betas)
        titles = ("true shape", f"calibrated, {identity.n_images} images", "mean shape")
        lines = [length_lines(lengths_mm(hand.assets, shape, None)) for shape in betas]
        lines[1] = length_lines(lengths_mm(hand.assets, identity.betas, identity.covariance))
        shapes = [
            ShapeView(title, *shape, lines=words)
            for title, *shape, words in zip(titles, vertices, joints, lines, strict=True)
        ]
        identity_figure(
            output / "pictures" / f"identity_subject-{subject:02d}.png",
            shapes,
            faces,
            vertices[0],
            title=f"unseen subject {subject:02d} (synthetic)",
        )


def pictured_rows(rows: int, count: int) -> np.ndarray:
    """``count`` of ``rows`` rows, evenly spread."""
    return np.linspace(0, rows - 1, count).round().astype(int)


def length_lines(lengths: dict[str, tuple[float, float | None]]) -> list[str]:
    """Hand and finger lengths in columns, mm, with their 95% intervals where they have one."""
    named = {name: Length(*numbers) for name, numbers in lengths.items()}
    with_interval = any(length.std_mm is not None for length in named.values())
    head = f"{'':<7}{'mm':>5}" + ("  95% interval" if with_interval else "")
    return [head] + [f"{name:<7}{_columns(length)}" for name, length in named.items()]


def _columns(length: Length) -> str:
    low, high = length.interval_95 or (None, None)
    return f"{length.mm:5.1f}" + ("" if low is None else f"  {low:5.1f} - {high:5.1f}")


def write_gallery(
    output: Path, dataset: Any, fitted: Predictions, identities: dict[int, Identity], hand: HandModel, count: int
) -> None:
    """Write ``index.html``, ``predictions.json`` and each picture's plot and meshes.

    Args:
        output: the demo's folder; dataset: that the rows come from.
        fitted: right hands with translation and keypoints, made with ``identities`` (by subject number).
        hand: the hand layer; count: pictures, evenly spread, as in `write_pictures`.
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
        width,
        K,
        square_box(keypoints, 1.0),
        keypoints,
        confidence,
        vertices[0],
        joints[0],
        hand.assets,
        rms,
        fitted.pose[row],
        fitted.transl[row],
        fitted.betas[row],
        length,
        sources=_SOURCES,
    )
