"""``python -m benchmarks.studies.video_errors``: how far the errors of a video's frames repeat (synthetic people).

Of every frame: what it says of the person's betas, pose and place integrated out, at the true betas. Were the noise
model right, that gradient would have the frame's information for its covariance, and nothing in common with another
frame's. Printed is what it has in common, over what it has with itself, by how far the hands' joints are apart; and the
same of the betas that the network predicts. `calibration.online.OnlineOptions` rests on it.

Then: how often the second half of a video is taken for another person's than the first half, and another video's for
the same person's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.scenes.online_cases import NETWORK, Watched, watched
from src.personalization.calibration.online import OnlineCalibration
from src.personalization.calibration.online_frames import FrameFitter
from src.personalization.calibration.population import CalibrationOptions, default_options
from src.personalization.calibration.view_evidence import View
from template import HandAssets, load_hand_assets
from template.kinematics import JointsModel

#: Bins of the mean distance of joints, mm.
EDGES = (0, 2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 120)
#: Directions of which a frame says less are left out (its information, in units of the betas).
LEAST = 1e-2
#: Mean confidence below which a frame is covered.
SEEN = 0.35


def in_common(
    seen: Watched, assets: HandAssets, options: CalibrationOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a video: distances (M,M) mm of its frames' hands, and what their gradients and predicted betas share (M,M)."""
    fitter = FrameFitter(assets, JointsModel(assets), options)
    network = options.population.network
    unit = np.linalg.inv(np.linalg.cholesky(network.noise))
    gradients, points, predicted = [], [], []
    for row in range(len(seen.pose)):
        if seen.confidence[row].mean() < SEEN:
            continue
        arrays = seen.keypoints[row], seen.confidence[row], seen.K, seen.pose[row], None
        view = fitter.view(*arrays, False, 0, seen.betas)
        if not isinstance(view, View):
            continue
        values, axes = torch.linalg.eigh(view.key.precision)
        slope = axes.mT @ (view.key.precision @ seen.betas - view.key.pull)
        told = values > LEAST
        white = torch.where(told, slope / values.clamp_min(LEAST).sqrt(), 0.0)
        gradients.append((axes @ white / told.sum().sqrt()).numpy())
        points.append(view.points.numpy())
        off = seen.predicted[row].numpy() - network.gain @ seen.betas.numpy() - network.offset
        predicted.append(unit @ off / np.sqrt(10))
    place = np.array(points)
    apart = 1000 * np.linalg.norm(place[:, None] - place[None], axis=-1).mean(axis=-1)
    first, second = np.array(gradients), np.array(predicted)
    return apart, first @ first.T, second @ second.T


def told_apart(videos: list[Watched], assets: HandAssets, options: CalibrationOptions) -> tuple[list[bool], list[bool]]:
    """Of each video's second half as a track of its own: refused; and of the next three people's: refused."""
    same, others = [], []
    for row, first in enumerate(videos):
        for place in range(4):
            online, second = OnlineCalibration(options=options, assets=assets), videos[(row + place) % len(videos)]
            half = len(first.pose) // 2
            for seen, rows, track in ((first, range(half), 0), (second, range(half, len(second.pose)), 1)):
                for at in rows:
                    said = {"pose": seen.pose[at], "betas": seen.predicted[at]}
                    online.add(seen.keypoints[at], seen.confidence[at], K=seen.K, track=track, **said)
            (others if place else same).append(1 in online.strangers)
    return same, others


def main() -> None:
    parser = argparse.ArgumentParser(description="How far the errors of a video's frames repeat.")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--cache", help="folder for what the networks said of each video")
    args = parser.parse_args()
    assets = load_hand_assets()
    options = default_options(assets, NETWORK, "video")
    videos = watched(args.seed, args.people, None if args.cache is None else Path(args.cache))
    found = [in_common(seen, assets, options) for seen in videos]
    pairs = [np.triu_indices(len(apart), 1) for apart, _, _ in found]
    apart = np.concatenate([one[0][pair] for one, pair in zip(found, pairs, strict=True)])
    own = [np.concatenate([np.diagonal(one[part]) for one in found]).mean() for part in (1, 2)]
    both = [np.concatenate([one[part][pair] for one, pair in zip(found, pairs, strict=True)]) for part in (1, 2)]
    print(f"{args.people} people of seed {args.seed}; variance over what is assumed: {own[0]:.2f}, betas {own[1]:.2f}")
    print("joints apart, mm     pairs  keypoints  predicted betas")
    for low, high in zip(EDGES, EDGES[1:], strict=False):
        within = (apart >= low) & (apart < high)
        if within.any():
            shares = [value[within].mean() / mean for value, mean in zip(both, own, strict=True)]
            print(f"{low:>7d} to {high:<7d} {within.sum():>8d}  {shares[0]:9.2f}  {shares[1]:15.2f}")
    same, others = told_apart(videos, assets, options)
    print(f"refused: {sum(same)} of {len(same)} tracks of the same person, {sum(others)} of {len(others)} of another")


if __name__ == "__main__":
    sys.exit(main())
