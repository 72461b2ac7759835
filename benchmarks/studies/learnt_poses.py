"""``python -m benchmarks.studies.learnt_poses [--data ../shared/data]``: what learning how hands are held is worth.

`personalise` learns from the keypoints how widely the poses of a set of pictures are spread
(`src.personalization.estimates.usual_poses`). Printed are errors with the hand model's own usual poses and with learnt
ones, and:

- simulated estimators, true shapes, in worlds whose poses are spread otherwise (times the usual covariance, rad beside
  it): with the world's own spread. Camera-space and wrist-relative error, mm.
- one real hand before two calibrated cameras, mediapipe's points of either camera alone and a ruler: distance of its
  landmarks on the fitted hand from the triangulated ones, about the wrist and after alignment, mm, and the relative
  spread of the wrist's depth. Their unit is unknown: one scale for all makes the median chain from wrist to middle
  fingertip equally long, and how far away the hand is in the mean cannot be judged.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.estimators import WITH_POSE, simulated_people
from benchmarks.real_hands import DESK_LENGTH, RULER_STD
from benchmarks.scenes.estimator_simulation import CLAIMS, WORLD, estimate
from src.evaluation.alignment import procrustes_align
from src.personalization.calibration.population import shapes_of
from src.personalization.estimates.evidence import Estimates, landmarks_of, prepare
from src.personalization.estimates.people import people_of
from src.personalization.estimates.personalise import calibrate_estimates, personalise_rows
from src.personalization.landmarks.two_cameras import chain, read_two_cameras
from src.personalization.terms.hand_size import LengthCue
from src.personalization.terms.pose_prior import PosePrior, habit_prior
from template import HandAssets, load_hand_assets
from template.kinematics import joints_model, posed_points
from utils.artifacts import Identity, Predictions

#: Simulated worlds: times the usual covariance, and rad of every finger angle beside it.
WORLDS = ((0.49, 0.0), (0.5, 0.05), (1.0, 0.1), (1.2, 0.2))


def mean_mm(off: np.ndarray) -> float:
    """Of offsets (...,3), m."""
    return 1000 * float(np.linalg.norm(off, axis=-1).mean())


def simulated(args: argparse.Namespace, assets: HandAssets) -> None:
    """A line for each estimator and world."""
    usual = assets.hands_components.T @ assets.hands_components
    for name in args.estimators:
        for spread, floor in WORLDS:
            root = np.linalg.cholesky(spread * usual + max(floor, 1e-4) ** 2 * np.eye(45)).T
            result = estimate(
                replace(assets, hands_components=root / WORLD.pose_spread), name, args.people, 20, args.seed
            )
            known: dict[str, PosePrior | None] = {
                "the hand model's": habit_prior(assets, torch.float32),
                "learnt": None,
                "the world's": habit_prior(assets, torch.float32, spread=spread, floor=max(floor, 0.01)),
            }
            off: dict[str, list[np.ndarray]] = {key: [] for key in known}
            for person in simulated_people(name, result):
                ready = prepare(person.rows, assets, shapes_of(assets), theirs=name in WITH_POSE)
                truth = {int(person.rows.subject_id[0]): Identity(person.betas, assets.name, assets.hash, 180.0)}
                for key, prior in known.items():
                    off[key].append(personalise_rows(ready, truth, assets, usual=prior).joints - person.joints)
            said = [(key, np.array(value)) for key, value in off.items()]
            line = "; ".join(f"{key} {mean_mm(one):5.2f} {mean_mm(one - one[:, :, :1]):5.2f}" for key, one in said)
            print(f"{name:10s} poses {spread:4.2f} {floor:4.2f}: {line}", flush=True)


def real(data: Path, assets: HandAssets) -> None:
    """Lines for each camera."""
    scene, landmarks = read_two_cameras(data / "detections/stereo_desk.json"), landmarks_of("mediapipe", assets)
    ruler = LengthCue("hand", DESK_LENGTH, RULER_STD)
    for camera in (0, 1):
        hands = [pair[camera] for pair in scene.hands]
        count = np.arange(len(hands))
        rows = Predictions(
            image_id=count, subject_id=0 * count, sequence_id=0 * count, is_left=count < 0, model_name="mediapipe",
            K=np.tile(scene.K[camera], (len(hands), 1, 1)),
            keypoints_2d=np.stack([np.asarray(hand["keypoints_2d"]) for hand in hands]),
            joints_3d=np.stack([np.asarray(hand["world_m"]) for hand in hands]),
        )  # fmt: skip
        ready: Estimates = prepare(rows, assets, people_of(assets), landmarks=landmarks, theirs=False)
        whose = calibrate_estimates(ready, assets, people_of(assets), (ruler,))
        model = joints_model(assets, landmarks and landmarks.of_person(whose[0]))
        for key, prior in (("the hand model's", habit_prior(assets, torch.float32)), ("learnt", None)):
            found = personalise_rows(ready, whose, assets, usual=prior).rows
            pose, betas, transl = (torch.as_tensor(v).double() for v in (found.pose, found.betas, found.transl))
            rest = model.rest_points(betas)
            points = posed_points(model, pose, rest).points + (transl + rest[:, 0])[:, None]
            points = points[:, model.to_standard].numpy()
            wanted = scene.points[camera] * np.median(chain(points)) / np.median(chain(scene.points[camera]))
            relative, aligned = points - points[:, :1] - wanted + wanted[:, :1], procrustes_align(points, wanted)
            depth = points[:, 0, 2] / wanted[:, 0, 2]
            print(
                f"desk, camera {camera}, {len(hands)} pictures, {key}: wrist-relative {mean_mm(relative):.1f}, aligned "
                f"{mean_mm(aligned - wanted):.2f} mm, wrist's depth {100 * depth.std() / depth.mean():.1f}%",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Usual poses of the hand model against learnt ones.")
    parser.add_argument("--estimators", nargs="*", default=list(CLAIMS), choices=list(CLAIMS))
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--seed", type=int, default=31001)
    parser.add_argument("--data", type=Path, help="of real hands; none: they are left out")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    assets = load_hand_assets(side="right")
    simulated(args, assets)
    if args.data is not None:
        real(args.data, assets)


if __name__ == "__main__":
    main()
