"""``python -m benchmarks.studies.sides_of_keypoints --detections FILE``: do 2D keypoints tell a right hand from a left?

Every hand is fitted as it is and mirrored (`src.personalization.estimates.sides`); what the mirrored hand costs more is
the logarithm of the odds for the side that it has. Printed: its mean over single hands, in what share of them it is
negative, and the least and the median of sums over ten hands (simulated: of a person, real: drawn from the set). The
product refuses sums below -10. Simulated people: 2D noise of 3% of the box, a fifth of it shared, as is believed of
them; then worse than that. Real hands: what mediapipe 0.10 said of pictures (a JSON of sets), its 2D points alone.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.scenes import estimator_simulation as simulation
from src.personalization.calibration.population import shapes_of
from src.personalization.estimates.sides import fit_mirrored
from src.personalization.fitting.from_keypoints import KeypointFitOptions, fit_keypoints
from src.personalization.terms.noise import KeypointNoise
from src.photos.camera import pinhole
from template import HandAssets, load_hand_assets
from utils.camera import mirror_intrinsics, mirror_points

#: Share of the box that noise is believed to be.
BELIEVED = 0.03
#: Name, noise over the box, part of it that a person's images share, times the true focal length, depths in m.
CASES = (
    ("as believed", 0.03, 0.2, 1.0, (0.5, 0.9)),
    ("twice the noise", 0.06, 0.2, 1.0, (0.5, 0.9)),
    ("most of it shared", 0.03, 0.7, 1.0, (0.5, 0.9)),
    ("half as wide a camera", 0.03, 0.2, 1.5, (0.5, 0.9)),
    ("far away", 0.03, 0.2, 1.0, (1.2, 2.0)),
    ("far, twice, shared", 0.06, 0.7, 1.0, (1.2, 2.0)),
)


def odds(assets: HandAssets, keypoints: torch.Tensor, K: torch.Tensor) -> np.ndarray:
    """(N,) for the side that right hands' keypoints (N,21,2) px have."""
    options = KeypointFitOptions(noise=KeypointNoise(std_box=BELIEVED), people=shapes_of(assets), flat=False)
    one = fit_keypoints(assets, keypoints, K, options=options).cost
    return (fit_mirrored(assets, keypoints, K, None, options).cost - one).numpy()


def report(name: str, found: np.ndarray, sums: np.ndarray) -> None:
    print(f"{name:28s} {found.size:3d} hands: mean {found.mean():5.2f}, {100 * (found < 0).mean():2.0f}% below 0; "
          f"ten: least {sums.min():6.1f}, median {np.median(sums):6.1f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Do 2D keypoints tell a right hand from a left one?")
    parser.add_argument("--detections", type=Path, help="JSON: set -> pictures of width, height, hands; K of the set")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--seed", type=int, default=31002)
    args = parser.parse_args()
    assets, world = load_hand_assets(side="right"), simulation.WORLD
    for name, noise, shared, lens, depth in CASES:
        simulation.WORLD = replace(world, depth=depth)
        claims = replace(simulation.CLAIMS["mediapipe"], keypoint_std_box=noise, shared=shared)
        result = simulation.estimate(assets, "mediapipe", args.people, 10, args.seed, claims)
        K = result.world.K.flatten(0, 1).clone()
        K[:, :2, :2] *= lens
        found = odds(assets, result.keypoints.flatten(0, 1), K).reshape(args.people, 10)
        report(name, found, found.sum(axis=1))
    generator = np.random.default_rng(0)
    sets = {} if args.detections is None else json.loads(args.detections.read_text(encoding="utf-8"))
    for name, content in sets.items():
        points, cameras = [], []
        for picture in content["pictures"]:
            camera = content.get("K", pinhole(picture["width"], picture["height"], 60))
            for hand in picture["hands"]:
                pixels, K = np.array(hand["keypoints_2d"], dtype=np.float64), np.array(camera, dtype=np.float64)
                if hand["side"] == "left":
                    pixels, K = mirror_points(pixels, picture["width"]), mirror_intrinsics(K, picture["width"])
                points.append(pixels)
                cameras.append(K)
        found = odds(assets, torch.as_tensor(np.array(points)), torch.as_tensor(np.array(cameras)))
        count = min(10, len(found))
        report(name, found, np.array([generator.permutation(found)[:count].sum() for _ in range(500)]))


if __name__ == "__main__":
    main()
