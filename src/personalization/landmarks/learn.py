"""Learn where a detector's points lie on the hand, from unlabelled detections of many people.

``python -m src.personalization.landmarks.learn --detections FILE ... --output FILE`` reads files of detections (see
`detections.read_detections`), prints what the model does on people left out, and writes a landmark model of all. It
takes some three minutes and no label: see `shared_fit` for what tells an offset from a bend, and `noise_fit` for how
noise and usual poses are learned. Half of the people teach the offsets, the others the noise, and the reverse.

``--two_cameras FILE`` adds a scene that two calibrated cameras saw (`two_cameras.read_two_cameras`). Only the first
half of its instants is used: ``benchmarks/real_hands.py`` reports on the second. It alone tells how far to trust the
detector's own 3D points, and how much of the noise at least repeats in all pictures of a person.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from dataclasses import dataclass, replace

import numpy as np
import torch

from options.command_line import CommandParser, run_command
from src.personalization.landmarks.detections import Detections, read_detections
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.landmarks.noise_fit import noise_sums, shared_part
from src.personalization.landmarks.shared_fit import SharedFitOptions, fit_shared
from src.personalization.landmarks.two_cameras import TwoCameras, read_two_cameras, shared_at_least, with_levels
from template import HandAssets, load_hand_assets
from utils.files import writable_file

logger = logging.getLogger(__name__)

#: Of the noise's expectation-maximisation.
ROUNDS = 4


def _flat(pair: str) -> tuple[str, float]:
    name, mm = pair.split("=")
    return name, float(mm)


def get_args_parser() -> CommandParser:
    parser = CommandParser("Landmark model of a detector from unlabelled detections.")
    parser.add_argument("--detections", nargs="+", required=True, metavar="FILE", help="JSON of detections")
    parser.add_argument("--output", required=True, help="landmark file to write")
    parser.add_argument("--name", default="mediapipe", help="of the detector")
    parser.add_argument("--one_person", nargs="*", default=[], metavar="SET", help="sets that show one person each")
    add = parser.add_argument
    add("--flat", nargs="*", type=_flat, default=[], metavar="SET=MM", help="sets of flat hands: mm a pixel")
    parser.add_argument("--two_cameras", metavar="FILE", help="JSON of a scene before two calibrated cameras")
    parser.add_argument("--hand_length_mm", type=float, default=187.0, help="wrist to middle fingertip in that scene")
    parser.add_argument("--mano_dir", help="folder with MANO; default: the stand-in hand where there is none")
    parser.add_argument("--world_std_mm", type=float, default=50.0, help="of 3D points' depth, without --two_cameras")
    parser.add_argument("--seed", type=int, default=0, help="which people are left out of which half")
    return parser


@dataclass(frozen=True)
class Evidence:
    """What there is to learn from: detections of many people and, if any, the first half of a scene of two cameras."""

    seen: Detections
    scene: TwoCameras | None = None

    def everything(self, seen: Detections | None = None) -> Detections:
        """Of these detections (None: all), and the scene."""
        seen = self.seen if seen is None else seen
        return seen if self.scene is None else seen.and_in_space(self.scene.points[0], "two cameras")


def learn(
    assets: HandAssets, evidence: Evidence, name: str, length: float, world_std: float, seed: int
) -> LandmarkModel:
    """A landmark model; prints how it does on people left out. Lengths in m, ``length`` of the hand in the scene."""
    options, halves = SharedFitOptions(), evidence.seen.halves(seed)
    fits = [fit_shared(assets, evidence.everything(half), options=options) for half in halves]
    for half, fit in zip(halves[::-1], fits, strict=True):
        for label, shifts in (("none", (np.zeros((21, 3)),) * 2), ("learned", (fit.offsets, fit.bends))):
            found = fit_shared(assets, half, shifts, options)
            mean = np.abs(found.betas.mean(axis=0)).max()
            print(
                f"people left out, offsets {label}: misfit {found.misfit:.4f} of the box, largest mean beta {mean:.2f}"
            )
    everything = evidence.everything()
    last = fit_shared(assets, everything, options=options)
    shared = shared_part(last, everything)
    model = LandmarkModel(
        name=name,
        hand_name=assets.name,
        hand_hash=assets.hash,
        offsets=last.offsets,
        bends=last.bends,
        std_box=np.full(21, 0.03),
        correlation=shared,
        world_std=np.full(21, world_std),
        world_scale_std=options.world_scale_std,
        pose_spread=1.0,
        people=len(np.unique(everything.person)),
        hands=len(everything),
    )
    for turn in range(ROUNDS):
        sums = [
            noise_sums(assets, half, replace(model, offsets=fit.offsets, bends=fit.bends))
            for half, fit in zip(halves[::-1], fits, strict=True)
        ]
        model = sums[0].plus(sums[1]).improved(model)
        print(f"round {turn + 1}: noise {model.std_box.mean():.4f} of the box, pose spread {model.pose_spread:.2f}")
    if evidence.scene is not None:
        model = with_levels(assets, evidence.scene, model)
        least = shared_at_least(assets, evidence.scene, model, length)
        print(f"shared by all pictures: residuals {shared:.2f}, hand length {least:.2f} of the noise")
        model = replace(model, correlation=max(shared, least))
    return model


def run(args: argparse.Namespace) -> None:
    """Check on people left out, learn from all, write.

    Raises:
        ValueError: files that are not detections, options that name no set.
    """
    read = {f"--detections {file}": file for file in args.detections} | {"--two_cameras": args.two_cameras}
    writable_file(args.output, "--output", read)  # before the work, not after it
    torch.manual_seed(args.seed)
    assets = load_hand_assets(args.mano_dir, "right")
    scene = None if args.two_cameras is None else read_two_cameras(args.two_cameras)
    evidence = Evidence(
        read_detections(args.detections, args.one_person, dict(args.flat)),
        None if scene is None else scene.first_half(args.hand_length_mm / 1000),
    )
    model = learn(assets, evidence, args.name, args.hand_length_mm / 1000, args.world_std_mm / 1000, args.seed)
    replace(model, made_by=f"python -m {__spec__.name} {shlex.join(sys.argv[1:])}").save(args.output)
    print(f"{model.hands} hands of {model.people} people: {args.output}")


if __name__ == "__main__":
    sys.exit(run_command(get_args_parser(), run))
