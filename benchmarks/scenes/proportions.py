"""Does a landmark model have the fingers of real hands? A part of `real_hands`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.personalization.calibration.population import Population
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.landmarks.two_cameras import chain, read_two_cameras
from template import HandAssets
from template.kinematics import joints_model, posed_points


def proportions(
    assets: HandAssets, landmarks: LandmarkModel | None, people: Population, detections: Path, flat: str
) -> dict[str, Any]:
    """Middle finger, knuckle to tip along its points, over wrist to that knuckle.

    Args:
        landmarks: of the detector; people: whose hands its points are laid on; detections: folder with
            mediapipe_real.json and stereo_desk.json; flat: set of hands that lie flat, seen from above.

    Returns:
        "joints", "model": mean and standard deviation over people, of joints and through the landmark model; medians of
        the flat hands in the picture, of the points of two cameras, and of the detector's own 3D points.
    """
    sets = json.loads((detections / "mediapipe_real.json").read_text(encoding="utf-8"))
    own = [h["world_m"] for group in sets.values() for picture in group["pictures"] for h in picture["hands"]]
    seen = [np.pad(picture["hands"][0]["keypoints_2d"], ((0, 0), (0, 1))) for picture in sets[flat]["pictures"]]
    some = torch.as_tensor(
        np.random.default_rng(0).multivariate_normal(people.betas_mean, people.betas_covariance, 300)
    )
    straight, result = torch.eye(3, dtype=torch.float64).expand(len(some), 16, 3, 3), {}
    for name, model in (("joints", joints_model(assets, None)), ("model", joints_model(assets, landmarks))):
        points = posed_points(model, straight, model.rest_points(some)).points[:, model.to_standard]
        found = _ratio(points.numpy())
        result[name] = [float(found.mean()), float(found.std())]
    triangulated = read_two_cameras(detections / "stereo_desk.json").points[0]
    for name, points in (("flat", np.array(seen)), ("two_cameras", triangulated), ("own_3d_points", np.array(own))):
        result[name] = float(np.median(_ratio(points)))
    return result


def _ratio(points: np.ndarray) -> np.ndarray:
    return chain(points) / np.linalg.norm(points[:, 9] - points[:, 0], axis=1) - 1
