"""Learn where a detector's points lie on the hand, from unlabelled detections of many people.

``python -m src.personalization.landmarks.learn --detections FILE ... --output FILE`` reads files of detections (see
`detections.read_detections`), prints what the model does on people left out, and writes a landmark model of all. It
takes some ten seconds and no label: see `shared_fit` for what tells an offset from a bend.

The numbers of trust are given, not learned. They were chosen on the first half of a scene seen by two cameras, by few
trials: noise of 0.03 of the box (0.012 and 0.02 were worse with these offsets; 0.05 was tried with earlier ones only,
where it made little difference), usual poses of the hand model's own spread (3 was slightly worse), one noise for all
(the one uneven pattern tried was worse). Of mediapipe's 3D points 50 mm is a compromise: with earlier offsets 30 mm
was slightly nearer but spread the wrist's depth more. A quarter of the noise is taken to repeat in all pictures of a
person: with a tenth, the calibrated size of the person of that scene contradicts the ruler by four standard
deviations. ``benchmarks/real_hands.py`` measures what follows.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence

import numpy as np
import torch

from src.personalization.landmarks.detections import Detections, read_detections
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.landmarks.shared_fit import SharedFit, SharedFitOptions, fit_shared
from template import HandAssets, load_hand_assets

logger = logging.getLogger(__name__)


def get_args_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(description="Landmark model of a detector from unlabelled detections.")
    parser.add_argument("--detections", nargs="+", required=True, metavar="FILE", help="JSON of detections")
    parser.add_argument("--output", required=True, help="landmark file to write")
    parser.add_argument("--name", default="mediapipe", help="of the detector")
    parser.add_argument("--one_person", nargs="*", default=[], metavar="SET", help="sets that show one person each")
    parser.add_argument("--flat", nargs="*", default=[], metavar="SET=MM", help="sets of flat hands: mm a pixel")
    parser.add_argument("--mano_dir", help="folder with MANO; default: the stand-in hand where there is none")
    parser.add_argument("--std_box", type=float, default=0.03, help="2D noise over the hand's box")
    parser.add_argument("--correlation", type=float, default=0.25, help="part of it that a person's pictures share")
    parser.add_argument("--world_std_mm", type=float, default=50.0, help="noise of the detector's own 3D points")
    parser.add_argument("--pose_spread", type=float, default=1.0, help="times the covariance of usual poses")
    parser.add_argument("--seed", type=int, default=0, help="which people are left out of the check")
    return parser


def left_out(assets: HandAssets, seen: Detections, options: SharedFitOptions, seed: int) -> dict[str, SharedFit]:
    """Fits of the people of one half: "none" to the joints, "learned" to points learned from the other half."""
    learning, others = seen.halves(seed)
    learned = fit_shared(assets, learning, options=options).offsets
    pairs = {"none": np.zeros((21, 3)), "learned": learned}
    return {name: fit_shared(assets, others, offsets, options) for name, offsets in pairs.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Check on people left out, learn from all, write.

    Raises:
        ValueError: files that are not detections, options that name no set.
    """
    args = get_args_parser().parse_args(argv)
    flat = {name: float(mm) for name, mm in (pair.split("=") for pair in args.flat)}
    torch.manual_seed(args.seed)
    assets, options = load_hand_assets(args.mano_dir, "right"), SharedFitOptions()
    seen = read_detections(args.detections, args.one_person, flat)
    for name, found in left_out(assets, seen, options, args.seed).items():
        mean = np.abs(found.betas.mean(axis=0)).max()
        print(f"people left out, offsets {name}: misfit {found.misfit:.4f} of the box, largest mean beta {mean:.2f}")
    words = sys.argv[1:] if argv is None else argv
    LandmarkModel(
        name=args.name,
        hand_name=assets.name,
        hand_hash=assets.hash,
        offsets=fit_shared(assets, seen, options=options).offsets,
        std_box=np.full(21, args.std_box),
        correlation=args.correlation,
        world_std=np.full(21, args.world_std_mm / 1000),
        world_scale_std=options.world_scale_std,
        pose_spread=args.pose_spread,
        made_by=f"python -m {__spec__.name} {shlex.join(words)}",
        people=len(np.unique(seen.person)),
        hands=len(seen),
    ).save(args.output)
    print(f"{len(seen)} hands of {len(np.unique(seen.person))} people: {args.output}")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(main())
