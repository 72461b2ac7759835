"""A hand before two calibrated cameras: where a source's points really are, and so how far to trust it elsewhere."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from src.evaluation.alignment import procrustes_align
from src.personalization.calibration.from_keypoints import (
    SOMEBODY,
    keypoint_options,
    keypoints_of,
    predictions_from_keypoints,
)
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.population import Population
from src.personalization.fitting.from_keypoints import KeypointFitOptions, fit_keypoints
from src.personalization.landmarks.model import LandmarkModel
from template import HandAssets
from template.kinematics import joints_model, posed_points

#: What is tried: times the learned noise; m, standard deviations of the 3D guess's depth; parts of the noise that
#: repeat.
NOISES = (1.0, 1.4, 2.0)
GUESSES = (0.01, 0.014, 0.02, 0.028, 0.04, 0.056, 0.08)
SHARED = (0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5)
#: Standard deviations; a calibration refuses a ruler that is four away.
CONTRADICTS = 3.0
#: Every so manieth instant is fitted.
SAMPLE = 3


@dataclass(frozen=True)
class TwoCameras:
    """M instants of one right hand seen by two calibrated cameras.

    Attributes:
        hands: (M,2) of the detections, dicts as `read_detections` documents them, keypoints undistorted.
        K: two of (3,3) px; points: two of (M,21,3) triangulated, each camera's axes, in the scene's own unit.
    """

    hands: list[tuple[dict[str, Any], dict[str, Any]]]
    K: list[np.ndarray]
    points: tuple[np.ndarray, np.ndarray]

    def first_half(self, length: float) -> TwoCameras:
        """The first half of the instants, the median chain from wrist to middle fingertip being ``length`` m."""
        half = len(self.hands) // 2
        scale = length / np.median(chain(self.points[0][:half]))
        return TwoCameras(self.hands[:half], self.K, (self.points[0][:half] * scale, self.points[1][:half] * scale))


def chain(points: np.ndarray) -> np.ndarray:
    """Wrist to middle fingertip along the joints (N,), m, of points (N,21,3), m."""
    return np.linalg.norm(np.diff(points[:, [0, 9, 10, 11, 12]], axis=1), axis=2).sum(axis=1)


def read_two_cameras(file: str | os.PathLike) -> TwoCameras:
    """A JSON ``{"cameras": [two of {"K", "distortion"}], "R", "T", "frames": [{"camera_0": [hand], "camera_1"}]}``.

    R, T lead from camera 0 to camera 1. Instants at which either sees no hand, or several, are left out.

    Raises:
        ValueError: not such a file, or of a left hand.
    """
    try:
        scene = json.loads(Path(file).read_text(encoding="utf-8"))
        K = [np.array(camera["K"], dtype=np.float64) for camera in scene["cameras"]]
        bend = [np.array(camera["distortion"], dtype=np.float64) for camera in scene["cameras"]]
        rotation, shift = np.array(scene["R"]), np.array(scene["T"]).reshape(3)
        cameras = K[0] @ np.eye(3, 4), K[1] @ np.c_[rotation, shift]
        hands, points = [], []
        for frame in scene["frames"]:
            if len(frame["camera_0"]) == len(frame["camera_1"]) == 1:
                pair = dict(frame["camera_0"][0]), dict(frame["camera_1"][0])
                if any(hand.get("side") == "left" for hand in pair):
                    raise ValueError(f"{file}: a left hand; scenes of a right hand are read")
                for hand, k, distortion in zip(pair, K, bend, strict=True):
                    seen = np.array(hand["keypoints_2d"], dtype=np.float64)[:, None]
                    hand["keypoints_2d"] = cv2.undistortPoints(seen, k, distortion, P=k)[:, 0]
                homogeneous = cv2.triangulatePoints(*cameras, *(hand["keypoints_2d"].T for hand in pair))
                hands.append(pair)
                points.append((homogeneous[:3] / homogeneous[3]).T)
    except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is no file of two cameras ({error!r}); see read_two_cameras") from error
    first = np.array(points)
    return TwoCameras(hands, K, (first, first @ rotation.T + shift))


def with_levels(assets: HandAssets, scene: TwoCameras, landmarks: LandmarkModel) -> LandmarkModel:
    """The model with the noise of `NOISES` times its own and the 3D guess's of `GUESSES` whose fits are nearest.

    What errors together (a finger, the whole hand) leaves residuals of a size that tells too little: a fit that counts
    21 points as independent trusts them too much, and takes for perspective what is their error: hands come out too
    small and too near. Nor can one picture judge the 3D points' depth: those in 2D are of the same network and agree
    with them, right or wrong.
    """
    models = [
        replace(landmarks, std_box=much * landmarks.std_box, world_std=np.full(21, std))
        for much in NOISES
        for std in GUESSES
    ]
    return min(models, key=lambda model: fit_error(assets, scene, model))


def fit_error(assets: HandAssets, scene: TwoCameras, landmarks: LandmarkModel) -> float:
    """Mean distance (m) of hands fitted to either camera from the points of both: wrist on wrist, one scale for all,
    and after alignment, added.
    """
    model, errors = joints_model(assets, landmarks), []
    options = KeypointFitOptions.of_source(landmarks)
    for camera in (0, 1):
        hands = [pair[camera] for pair in scene.hands[::SAMPLE]]
        keypoints, world = (
            torch.as_tensor(np.stack([np.asarray(hand[name], dtype=np.float64) for hand in hands]))
            for name in ("keypoints_2d", "world_m")
        )
        K = torch.as_tensor(scene.K[camera]).expand(len(hands), 3, 3)
        fit = fit_keypoints(assets, keypoints, K, world=world, options=options)
        points = posed_points(model, fit.pose, model.rest_points(fit.betas)).points[:, model.to_standard].numpy()
        points, wanted = (value - value[:, :1] for value in (points, scene.points[camera][::SAMPLE]))
        scale = np.median(chain(wanted)) / np.median(chain(points))
        off = (scale * points - wanted, procrustes_align(points, wanted) - wanted)
        errors.append(sum(np.linalg.norm(value, axis=2).mean() for value in off))
    return float(np.mean(errors))


def shared_at_least(assets: HandAssets, scene: TwoCameras, landmarks: LandmarkModel, length: float) -> float:
    """The smallest of `SHARED` with which either camera's pictures alone do not contradict the hand's length (m).

    What repeats in all pictures of a person and looks like another shape leaves no residual: only somebody whose hand
    was measured shows it. The person's own points, which would take up a part of it, are not solved for here, nor is
    the length corrected for what poses leave open: what remains besides these two is then at most this.
    """
    rows = []
    beliefs = keypoint_options(assets, Population(), landmarks=landmarks)
    beliefs = replace(beliefs, own_points=False, laplace=False)
    for camera in (0, 1):
        keypoints = np.stack([np.asarray(pair[camera]["keypoints_2d"]) for pair in scene.hands[::SAMPLE]])
        rows.append(predictions_from_keypoints(keypoints_of(keypoints, scene.K[camera]), assets, beliefs, SOMEBODY))
    for shared in SHARED:
        options, worst = replace(beliefs, error_correlation=shared, same_video=False), 0.0
        for row in rows:
            found = calibrate_predictions(row, assets, options, num_images=None)[SOMEBODY]
            worst = max(worst, abs(1000 * length - found.hand_length_mm) / (found.hand_length_std_mm or np.inf))
        if worst < CONTRADICTS:
            break
    return shared
