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
    """For ``count`` images a figure, a PLY of the hand and an entry of the page; for each subject a figure of shapes.

    Args:
        output: the demo's folder; files go to ``pictures/``, ``meshes/`` and, of the page, where `Gallery` says.
        variants: baseline and identity_calibrated, alike in rows.
    """
    fitted, faces = variants["identity_calibrated"].fitted, hand.faces.cpu().numpy()
    lengths = {
        number: HandLength(
            one.hand_length_mm,
            one.hand_length_std_mm,
            f"{one.n_images} unlabelled images of this person ({one.method})",
        )
        for number, one in identities.items()
    }
    people = ", ".join(f"subject-{number:02d} {length.mm:.0f} mm" for number, length in lengths.items())
    about = {
        "model": {"name": fitted.model_name, "hash": fitted.model_hash},
        "hand_model": {"name": hand.assets.name, "hash": hand.assets.hash},
        "identity": {f"subject-{number:02d}": length.as_json() for number, length in lengths.items()},
    }
    lead = f"Synthetic pictures of people whom no network has seen, with the shape calibrated for each: {people}."
    index = {int(image): row for row, image in enumerate(dataset.columns["image_id"])}
    with Gallery(output, "Unseen people, each with their own hand", lead, about) as gallery:
        for row in np.linspace(0, len(fitted) - 1, count).round().astype(int):
            views = []
            for title, kind, colour in (
                ("without identity", "baseline", ANONYMOUS_COLOUR),
                ("with identity", "identity_calibrated", IDENTITY_COLOUR),
            ):
                found, scores = variants[kind].fitted, variants[kind].fitted_scores.per_sample["mpvpe_mm"]
                joints, vertices = hand_points(hand, found.pose[[row]], found.betas[[row]], found.transl[[row]])
                views.append(HandView(title, vertices[0], joints[0], float(scores[row]), colour))
            _, true_vertices = hand_points(hand, truth["pose"][[row]], truth["betas"][[row]], truth["transl"][[row]])
            image_id, subject = int(fitted.image_id[row]), int(fitted.subject_id[row])
            name = f"subject-{subject:02d}_{image_id:06d}"
            image, K = dataset.full_image(index[image_id]), fitted.K[row].astype(np.float64)
            demo_figure(
                output / "pictures" / f"{name}.jpg",
                image,
                K,
                faces,
                views,
                box=square_box(project_numpy(true_vertices[0], K), 1.3),
                keypoints_2d=fitted.keypoints_2d[row],
                keypoint_confidence=fitted.keypoint_confidence[row],
                true_vertices=true_vertices[0],
                title=f"unseen subject {subject:02d}, image {image_id} (synthetic; white: true outline)",
            )
            write_mesh(output / "meshes" / f"{name}.ply", views[1].vertices, faces)
            result = fitted_hand(fitted, int(row), hand, views[1], image.shape[1], lengths[subject])
            gallery.add(name, name, image, result)
    for subject, identity in identities.items():
        betas = np.stack([dataset.subject_betas[subject], identity.betas, np.zeros(10)])
        vertices, joints = rest_hand(hand, betas)
        titles = ("true shape", f"calibrated, {identity.n_images} images", "mean shape")
        covariances = (None, identity.covariance, None)
        shapes = [
            ShapeView(title, mesh, points, lines=length_lines(lengths_mm(hand.assets, numbers, covariance)))
            for title, mesh, points, numbers, covariance in zip(
                titles, vertices, joints, betas, covariances, strict=True
            )
        ]
        identity_figure(
            output / "pictures" / f"identity_subject-{subject:02d}.png",
            shapes,
            faces,
            vertices[0],
            title=f"unseen subject {subject:02d} (synthetic)",
        )


def length_lines(lengths: dict[str, tuple[float, float | None]]) -> list[str]:
    """Hand and finger lengths in columns, mm, with their 95% intervals where they have one."""
    lines = [f"{'':<7}{'mm':>5}"]
    for name, numbers in lengths.items():
        interval = Length(*numbers).interval_95
        lines.append(f"{name:<7}{numbers[0]:5.1f}")
        if interval is not None:
            lines[0] = f"{'':<7}{'mm':>5}  95% interval"
            lines[-1] += f"  {interval[0]:5.1f} - {interval[1]:5.1f}"
    return lines


def fitted_hand(
    fitted: Predictions, row: int, hand: HandModel, view: HandView, width: int, length: HandLength
) -> Result:
    """One row of fitted predictions, posed as ``view``, as a hand in its picture of ``width`` px."""
    K, keypoints = fitted.K[row].astype(np.float64), fitted.keypoints_2d[row]
    confidence = fitted.keypoint_confidence[row]
    squared = np.square(project_numpy(view.joints.astype(np.float64), K) - keypoints).sum(axis=1)
    rms = float(np.sqrt((confidence * squared).sum() / max(float(confidence.sum()), 1e-9)))
    return Result(
        width,
        K,
        box=square_box(keypoints, 1.0),
        keypoints=keypoints,
        confidence=confidence,
        vertices=view.vertices,
        joints=view.joints,
        assets=hand.assets,
        reprojection_px=rms,
        pose=fitted.pose[row],
        transl=fitted.transl[row],
        betas=fitted.betas[row],
        length=length,
        sources=_SOURCES,
    )
