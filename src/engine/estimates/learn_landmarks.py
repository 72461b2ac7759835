"""Where an estimator's 21 3D points lie on our hand, learnt from its own results: a landmark file.

``python -m src.engine.estimates.learn_landmarks --estimates PATH --format NAME --output FILE`` takes the joints of all
hands, one person a file, and finds the offsets that they share (`landmarks.shared_fit`), each person's shape and each
hand's pose being free within their priors. It is for estimators whose points are those of another hand model's rig
(SAM 3D Body: MHR), which differ from ours at the wrist and the thumb's base. The other points are held: a longer bone
is the shape's to explain, an offset would turn with its finger. What is printed for each person left out is the root
mean square distance of its points to our hand, without offsets and with those of the others.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace

import numpy as np
import torch

from options.command_line import CommandParser, run_command
from options.estimate_options import FORMATS
from src.estimators import read_estimates
from src.personalization.fitting.from_joints import JointFitOptions, fit_joints
from src.personalization.landmarks.detections import Detections
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.landmarks.shared_fit import SharedFitOptions, fit_shared
from src.personalization.solver.status import CalibrationError, usable
from template import HandAssets, load_hand_assets
from utils.artifacts import Predictions
from utils.files import writable_file

#: m, how far points of another rig may lie from ours: wrist and thumb's base (standard order 0 and 1), and the others.
FREE, HELD = 0.015, 0.001
#: m, of a point about where the offset model has it: what another model's proportions leave, and its own noise.
SPACE_STD = 0.004
#: Nothing is learnt of the 2D noise: the landmark file needs numbers, the trust file's take their place.
STD_BOX, WORLD_STD, CORRELATION = 0.02, 0.008, 0.2


def learn(assets: HandAssets, rows: Predictions) -> LandmarkModel:
    """The model of all hands (m); its noise is assumed, not learnt.

    Raises:
        CalibrationError: no 3D joints.
    """
    if rows.joints_3d is None:
        raise CalibrationError(f"{rows.source}: {rows.model_name} has no 3D joints to learn from")
    stds = ((FREE,) * 3, (FREE,) * 3, *((HELD,) * 3,) * 19)
    people, person = np.unique(rows.subject_id, return_inverse=True)
    seen = Detections.in_space_only(rows.joints_3d.astype(np.float64), person, [str(number) for number in people])
    found = fit_shared(assets, seen, options=SharedFitOptions(offset_std=stds, bend_std=None, space_std=SPACE_STD))
    return LandmarkModel(
        name=rows.model_name,
        hand_name=assets.name,
        hand_hash=assets.hash,
        offsets=found.offsets,
        std_box=np.full(21, STD_BOX),
        correlation=CORRELATION,
        world_std=np.full(21, WORLD_STD),
        world_scale_std=0.15,
        pose_spread=1.0,
        people=len(people),
        hands=len(rows),
    )


def misfit_mm(assets: HandAssets, rows: Predictions, model: LandmarkModel | None) -> float:
    """Root mean square distance, mm, of the joints to the hands that fit them best, each of its own shape and size."""
    options = JointFitOptions(std=SPACE_STD, scale_std=0.15, landmarks=model)
    found = fit_joints(assets, torch.as_tensor(rows.joints_3d).double(), options=options)
    return 1000 * float(found.residual[usable(found.status)].square().mean().sqrt())


def main() -> int:
    parser = CommandParser("Landmark model of an estimator from its own 3D joints.")
    parser.add_argument("--estimates", required=True, help="file or folder that the estimator wrote, a person a file")
    parser.add_argument("--format", required=True, choices=FORMATS, help="of which estimator")
    parser.add_argument("--output", required=True, help="landmark file to write")
    parser.add_argument("--mano_dir", help="folder with MANO; default: the stand-in hand where there is none")
    return run_command(parser, run)


def run(args: argparse.Namespace) -> None:
    """Check on people left out, learn from all, write.

    Raises:
        ArtifactError, CalibrationError, FileNotFoundError: see the functions called.
    """
    writable_file(args.output, "--output", {"--estimates": args.estimates})  # before the work, not after it
    assets = load_hand_assets(args.mano_dir, side="right")
    rows = read_estimates(args.estimates, args.format, subjects="file")
    torch.manual_seed(0)
    for subject in np.unique(rows.subject_id) if len(np.unique(rows.subject_id)) > 1 else ():
        own = rows.subject_id == subject
        others = learn(assets, rows.select(~own))
        none, learnt = (misfit_mm(assets, rows.select(own), model) for model in (None, others))
        print(f"person {subject} left out: {none:.1f} mm without offsets, {learnt:.1f} mm with those of the others")
    model = learn(assets, rows)
    words = shlex.join(sys.argv[1:])
    replace(model, made_by=f"python -m src.engine.estimates.learn_landmarks {words}").save(args.output)
    print(f"{model.hands} hands of {model.people} people: {args.output}")


if __name__ == "__main__":
    sys.exit(main())
