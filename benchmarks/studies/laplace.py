"""``python -m benchmarks.studies.laplace``: what Laplace's correction (`problem.log_volume_gradient`) does to a person.

Simulated people, errors as the calibration believes; or, with ``--predictions --keypoints --data_root``, people whom
networks have seen. Printed: zero-pose error, bias of the hand's length, and how often 95% intervals hold. On
2026-11-26 (20 seeds of 8 people; and the shipped networks' predictions, 20 images of each person)::

    0.25 rad, 2 px, without: 2.29  +2.04  0.875 0.911
    0.25 rad, 2 px, with: 2.01  -0.33  0.938 0.951
    0.25 rad, 2 px: better by +0.27 ± 0.08 for 160 people
    as shipped, without: 4.43  -5.81  0.850 0.953
    as shipped, with: 3.26  +0.26  0.956 0.971
    as shipped: better by +1.16 ± 0.24 for 160 people
    predictions, without: 3.46  -4.43  0.767 0.853
    predictions, with: 2.64  -1.95  0.867 0.860
    predictions: better by +0.82 ± 0.19 for 30 people

On 40 people rendered at half the size (``--render_scale 0.5``) it was worse by 0.79 ± 0.16 mm: there the networks'
own error makes hands 4 mm too long, as much as it makes those of full size too short.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import roma
import torch

from benchmarks.scenes.calibration_cases import KNOWN, standardised
from benchmarks.scenes.simulation import Simulated, SimulationOptions, simulate
from datasets import open_labels
from src.evaluation.shape import zero_pose_mpvpe
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.multi_frame import calibrate_frames
from src.personalization.calibration.population import (
    SHIPPED_PRIOR,
    Population,
    calibration_options,
    load_population,
)
from src.personalization.pairing import pair_keypoints
from src.personalization.terms.hand_size import HALF_95, length_gradient
from template import HandAssets, HandModel, load_hand_assets
from template.kinematics import JointsModel
from utils.artifacts import load_predictions

#: Betas (P,10), their covariance (P,10,10), and the true ones.
Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Calibration with and without Laplace's correction.")
    parser.add_argument("--seeds", type=int, default=20, help="of 8 simulated people each")
    parser.add_argument("--images", type=int, default=20, help="of each person")
    parser.add_argument("--predictions", help="npz of mano_baseline_conf instead; of people not trained on")
    parser.add_argument("--keypoints", help="npz of pose_2d on the same images")
    parser.add_argument("--data_root")
    return parser


def shipped_world(assets: HandAssets, people: Population, images: int, seed: int) -> Simulated:
    """Eight people seen by networks that err as the shipped ones do, but independently in every image."""
    depth = (float(people.depth[0]), float(people.depth[1]))
    world = simulate(assets, 8, images, SimulationOptions(0.0, 0.0, 0.0, depth), seed)
    generator = torch.Generator().manual_seed(seed)
    factor = torch.linalg.cholesky(torch.as_tensor(people.pose_error))
    turns = torch.randn(8, images, 48, generator=generator, dtype=torch.float64) @ factor.T
    box = (world.keypoints.amax(2) - world.keypoints.amin(2)).amax(-1)[..., None, None]
    noise = torch.randn(world.keypoints.shape, generator=generator, dtype=torch.float64)
    return replace(
        world,
        predicted=world.pose @ roma.rotvec_to_rotmat(turns.unflatten(-1, (16, 3))),
        keypoints=world.keypoints + float(people.keypoint_std_box) * box * noise,
    )


def simulated(args: argparse.Namespace, assets: HandAssets, laplace: bool, shipped: bool) -> Iterator[Found]:
    """Eight people at a time."""
    people, model = load_population(SHIPPED_PRIOR, assets.hash), JointsModel(assets)
    believed = replace(calibration_options(people), population=people.shapes_only()) if shipped else KNOWN
    for seed in range(args.seeds):
        world = (
            shipped_world(assets, people, args.images, seed)
            if shipped
            else simulate(assets, 8, args.images, SimulationOptions(), seed)
        )
        options = replace(believed, laplace=laplace)
        found = calibrate_frames(model, world.predicted, torch.zeros(8, 10), world.K, world.keypoints, options=options)
        yield found.betas, found.covariance, world.betas


def predicted(args: argparse.Namespace, assets: HandAssets, laplace: bool) -> Iterator[Found]:
    """One person after the other."""
    rows = pair_keypoints(load_predictions(args.predictions), load_predictions(args.keypoints))
    dataset = open_labels("dex_ycb", args.data_root, rows.split)
    options = replace(calibration_options(load_population(SHIPPED_PRIOR, assets.hash)), laplace=laplace)
    for subject, one in calibrate_predictions(rows, assets, options, num_images=args.images).items():
        betas = np.stack([one.betas, dataset.subject_betas[subject].astype(np.float64)])
        yield torch.as_tensor(betas[:1]), torch.as_tensor(one.covariance)[None], torch.as_tensor(betas[1:])


def main() -> None:
    args = get_args_parser().parse_args()
    torch.set_num_threads(1)
    assets = load_hand_assets()
    hand, model = HandModel(assets, dtype=torch.float64), JointsModel(assets)
    cases = {
        name: [list(simulated(args, assets, laplace, name == "as shipped")) for laplace in (False, True)]
        for name in ("0.25 rad, 2 px", "as shipped")
        if args.predictions is None
    } or {"predictions": [list(predicted(args, assets, laplace)) for laplace in (False, True)]}
    print("zero-pose MPVPE (mm), length bias (mm), 95% intervals of length and betas")
    for name, pair in cases.items():
        errors = []
        for label, parts in zip(("without", "with"), pair, strict=True):
            betas, covariance, truth = (torch.cat(part) for part in zip(*parts, strict=True))
            length, true = (length_gradient(model, b, "hand")[0] for b in (betas, truth))
            z = standardised(model, betas, covariance, truth)
            errors.append(np.asarray(zero_pose_mpvpe(hand, betas, truth)))
            held = [float((np.abs(z[name]) < HALF_95).mean()) for name in ("hand length", "betas")]
            bias = 1000 * float((length - true).mean())
            print(f"{name}, {label}: {errors[-1].mean():.2f}  {bias:+.2f}  {held[0]:.3f} {held[1]:.3f}")
        gain = errors[0] - errors[1]
        print(
            f"{name}: better by {gain.mean():+.2f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.2f} for {len(gain)} people"
        )


if __name__ == "__main__":
    main()
