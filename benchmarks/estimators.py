"""What one hand for all frames does to other estimators' results: released, one mean shape, ours, ours with a ruler.

``python benchmarks/estimators.py --json`` simulates people and estimators (`estimator_simulation` says how, and what is
assumed), writes their files, reads them, and prints ``rows`` of estimator, treatment, wrist_relative_mm,
camera_space_mm, zero_pose_mm, each with its 95% interval over people, and what calibration's intervals hold.

- ``released``: their hand, placed with the right K where its keypoints are (by their own made-up camera it is
  ``own_camera_mm`` off, which is no contest).
- ``turned``: the same, turned to the ray that it was seen along: what knowing K alone mends of a crop's orientation.
- ``mean_shape``: their pose with the mean of the person's predicted betas (of estimators without betas: of those that
  fit their joints), placed likewise. What people do today.
- ``ours``, ``ours_ruler``: `personalise` without and with a hand length measured to 3 mm.
- ``true_shape``: the same with the true betas: the least that one shape for all frames can leave.

``depth_shared_mm`` is the mean error of a person's wrist depths (of the size), ``depth_each_mm`` their spread about it.

HaMeR- and WiLoR-like betas and poses are those of the hand in use, as of a user who has MANO; the others' points only.
Trust was measured on other simulated people: ``--make_trust`` does it again and writes ``weights/trust_*.json``.
``--estimates PATH --format NAME --labels LABELS.npz`` measures real results: labels hold keypoints_2d (N,21,2) px,
joints_3d (N,21,3) m in the camera frame, image, is_left, subject, K, image_size, and if known betas (N,10).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks.scenes.estimator_simulation import CLAIMS, SIZE, Estimated, estimate, write_results  # noqa: E402
from src.engine.estimates.measure_trust import camera_of, paired  # noqa: E402
from src.estimators import read_estimates  # noqa: E402
from src.estimators.records import place  # noqa: E402
from src.personalization.calibration.population import shapes_of  # noqa: E402
from src.personalization.estimates.evidence import CROPPED, landmarks_of, prepare  # noqa: E402
from src.personalization.estimates.measure import measure_trust  # noqa: E402
from src.personalization.estimates.personalise import calibrate_estimates, personalise_rows  # noqa: E402
from src.personalization.fitting.from_keypoints import ray_turn  # noqa: E402
from src.personalization.landmarks.model import LandmarkModel  # noqa: E402
from src.personalization.terms.hand_size import LengthCue, length_gradient  # noqa: E402
from template import HandAssets, HandModel, load_hand_assets  # noqa: E402
from template.kinematics import JointsModel  # noqa: E402
from utils.artifacts import Identity, Predictions  # noqa: E402

#: Uncertainty of the ruler, m; people measured, and those that trust was chosen on.
RULER, TEST_SEED, TUNING_SEED = 0.003, 2211, 5000
WITH_POSE = ("hamer", "wilor")
TREATMENTS = ("released", "turned", "mean_shape", "ours", "ours_ruler", "true_shape")
METRICS = ("wrist_relative_mm", "camera_space_mm", "zero_pose_mm", "depth_shared_mm", "depth_each_mm")


@dataclass
class Person:
    """Estimates of one person, right-hand convention, and the truth: joints (N,21,3) m camera frame, betas (10,)."""

    rows: Predictions
    joints: np.ndarray
    betas: np.ndarray
    own_camera_mm: float = float("nan")
    frames: np.ndarray | None = None  # (N,) of the simulated ones


def simulated_people(name: str, result: Estimated) -> list[Person]:
    """What our readers make of the files of each simulated person."""
    people = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(len(result.world.betas)):
            path = write_results(Path(folder) / str(number), name, result, number)
            K, joints = result.world.K[number, 0].numpy(), result.world.joints[number].numpy()
            rows = read_estimates(path, name, K=K, image_size=SIZE)
            rows = rows.select(~rows.is_left)  # SAM 3D Body's other hand is a mirror image here
            rows.subject_id[:] = number
            # Where neither of a picture's hands lies in it, SAM 3D Body's is left out.
            frames = np.array([int(Path(image).stem.removeprefix("frame-")) for image in rows.image_name])
            joints = joints[frames]
            off = float("nan")
            if name != "mediapipe":
                made_up = read_estimates(path, name, image_size=SIZE)
                made_up = made_up.select(~made_up.is_left)
                off = 1000 * float(np.linalg.norm(placed(made_up, made_up.joints_3d) - joints, axis=-1).mean())
            people.append(Person(rows, joints, result.world.betas[number].numpy(), off, frames))
    return people


def placed(rows: Predictions, joints: np.ndarray) -> np.ndarray:
    """Joints (N,21,3) m moved where K sees them at the keypoints."""
    each = zip(joints.astype(np.float64), rows.keypoints_2d.astype(np.float64), rows.K.astype(np.float64), strict=True)
    return np.stack([points + place(points, pixels, K) for points, pixels, K in each])


class Measure:
    """Errors by treatment and person, and calibration's standardised errors of the hand's length."""

    def __init__(self, assets: HandAssets, landmarks: LandmarkModel | None = None) -> None:
        self.assets, self.people, self.landmarks = assets, shapes_of(assets), landmarks
        self.hand, self.model = HandModel(assets, dtype=torch.float64), JointsModel(assets)
        self.errors: dict[str, list[list[float]]] = defaultdict(list)
        self.standardised: dict[str, list[float]] = defaultdict(list)
        self.identities: dict[str, list[Identity]] = defaultdict(list)

    def rest(self, betas: np.ndarray) -> torch.Tensor:
        """Zero-pose vertices (N,778,3) m."""
        flat = torch.eye(3, dtype=torch.float64).expand(len(betas), 16, 3, 3)
        return self.hand(flat, torch.as_tensor(betas, dtype=torch.float64)).vertices

    def add(self, treatment: str, joints: np.ndarray, betas: np.ndarray, person: Person) -> None:
        """One person's errors: joints (N,21,3) m, camera frame, betas (M,10)."""
        off = joints - person.joints
        relative = off - off[:, :1]
        rest = (self.rest(betas) - self.rest(person.betas[None])).norm(dim=-1).mean()
        depth = off[:, 0, 2]
        numbers = (np.linalg.norm(relative, axis=-1).mean(), np.linalg.norm(off, axis=-1).mean(), float(rest),
                   abs(depth.mean()), depth.std())  # fmt: skip
        self.errors[treatment].append([1000 * float(number) for number in numbers])

    def person(self, person: Person, theirs: bool, generator: np.random.Generator) -> None:
        """Every treatment of one person."""
        ready = prepare(person.rows, self.assets, self.people, landmarks=self.landmarks, theirs=theirs)
        rows, own = person.rows, ready.rows.betas.astype(np.float64)
        self.add("released", placed(rows, rows.joints_3d), own, person)
        turned = rows.joints_3d.astype(np.float64)
        if rows.model_name in CROPPED:
            turn = ray_turn(torch.as_tensor(rows.K).double(), torch.as_tensor(rows.keypoints_2d).double().mean(dim=1))
            turned = turned @ turn.mT.numpy()
        self.add("turned", placed(rows, turned), own, person)
        mean, pose = own.mean(axis=0)[None], torch.as_tensor(rows.pose if theirs else ready.rows.pose).double()
        joints = self.hand.joints(pose, torch.as_tensor(mean.repeat(len(rows), axis=0))).numpy()
        self.add("mean_shape", placed(rows, joints - joints[:, :1]), mean, person)
        true = float(length_gradient(self.model, torch.as_tensor(person.betas), "hand")[0])
        ruler = LengthCue("hand", true + RULER * generator.normal(), RULER)
        for treatment, cues in (("ours", ()), ("ours_ruler", (ruler,))):
            found = calibrate_estimates(ready, self.assets, self.people, cues, accept_conflict=True)
            identity = next(iter(found.values()))
            self.add(treatment, personalise_rows(ready, found, self.assets).joints, identity.betas[None], person)
            off = (identity.hand_length_mm - 1000 * true) / identity.hand_length_std_mm
            self.standardised[treatment].append(float(off))
            self.identities[treatment].append(identity)
        true_shape = {0: Identity(person.betas, self.assets.name, self.assets.hash, 1000 * true)}
        self.add("true_shape", personalise_rows(ready, true_shape, self.assets).joints, person.betas[None], person)

    def rows(self, estimator: str) -> list[dict[str, Any]]:
        """One row a treatment; intervals by resampling people."""
        generator, found = np.random.default_rng(0), []
        released = np.array(self.errors["released"])
        for treatment in TREATMENTS:
            errors = np.array(self.errors[treatment])
            drawn = errors[generator.integers(0, len(errors), (2000, len(errors)))].mean(axis=1)
            row: dict[str, Any] = {"estimator": estimator, "treatment": treatment, "people": len(errors)}
            for index, metric in enumerate(METRICS):
                row[metric] = round(float(errors[:, index].mean()), 3)
                row[f"{metric[:-3]}_95_mm"] = np.quantile(drawn[:, index], [0.025, 0.975]).round(3).tolist()
            row["worst_person_wrist_ratio"] = round(float((errors[:, 0] / released[:, 0]).max()), 4)
            if treatment in self.standardised:
                z = np.array(self.standardised[treatment])
                row["length_in_95"] = round(float((np.abs(z) < 1.96).mean()), 4)
                row["length_z_rms"] = round(float(np.sqrt((z**2).mean())), 3)
            found.append(row)
        return found


def simulated(args: argparse.Namespace, assets: HandAssets) -> list[dict[str, Any]]:
    """Rows of every simulated estimator."""
    rows: list[dict[str, Any]] = []
    for name in args.estimators:
        people = simulated_people(name, estimate(assets, name, args.people, args.frames, args.seed))
        measure, generator = Measure(assets), np.random.default_rng(args.seed)
        for person in tqdm(people, desc=name, disable=None):
            measure.person(person, name in WITH_POSE, generator)
        found = measure.rows(f"{name}-like")
        own = float(np.mean([person.own_camera_mm for person in people]))
        if np.isfinite(own):  # results without a camera of their own have none
            found[0]["own_camera_mm"] = round(own, 1)
        rows += found
    return rows


def real(args: argparse.Namespace, assets: HandAssets) -> list[dict[str, Any]]:
    """Rows of real results with labels."""
    labels = read_estimates(args.labels, "joints")
    camera, size = camera_of(labels)
    rows = read_estimates(args.estimates, args.format, K=camera, image_size=size, images=args.images)
    rows, labels = paired(rows, labels)
    with np.load(args.labels, allow_pickle=False) as archive:
        wrists = archive["joints_3d"][labels.image_id][:, :1] * np.where(labels.is_left, -1.0, 1.0)[:, None, None]
        wrists[..., 1:] = archive["joints_3d"][labels.image_id][:, :1, 1:]
        betas = archive["betas"][labels.image_id] if "betas" in archive.files else None
    if betas is None:
        raise SystemExit(f"{args.labels} has no betas (N,10) of the hand in use, which zero-pose errors need")
    measure, generator = Measure(assets, landmarks_of(args.format, assets)), np.random.default_rng(args.seed)
    for subject in np.unique(rows.subject_id):
        own = rows.subject_id == subject
        joints = labels.joints_3d[own] + wrists[own]
        theirs = rows.hand_name == assets.name == "MANO"
        measure.person(Person(rows.select(own), joints, betas[own][0]), theirs, generator)
    return measure.rows(args.format)


def make_trust(args: argparse.Namespace, assets: HandAssets) -> None:
    """Write weights/trust_*.json from simulated people that the benchmark does not see."""
    folder = Path(__file__).resolve().parents[1] / "weights"
    for name in args.estimators:
        result = estimate(assets, name, 80, args.frames, TUNING_SEED)
        people = simulated_people(name, result)
        every = [person.rows for person in people]
        columns = ("subject_id", "is_left", "K", "keypoints_2d", "joints_3d", "pose", "betas", "sequence_id")
        merged = {
            key: None if getattr(every[0], key) is None else np.concatenate([getattr(rows, key) for rows in every])
            for key in columns
        }
        count = np.arange(len(merged["K"]))
        rows = replace(every[0], image_id=count, image_name=None, image_size=None, keypoint_confidence=None, **merged)
        truth = np.concatenate([person.joints for person in people])
        seen = [points[person.frames] for points, person in zip(result.world.keypoints.numpy(), people, strict=True)]
        labels = replace(
            rows,
            keypoints_2d=np.concatenate(seen),
            joints_3d=truth - truth[:, :1],
            betas=np.concatenate([np.tile(person.betas, (len(person.joints), 1)) for person in people]),
        )
        basis = (
            f"80 simulated people seen by a simulated {name}-like estimator (benchmarks/estimators.py --make_trust); "
            "its errors are published or assumed ones, see benchmarks/scenes/estimator_simulation.py; NOT measured on "
            f"results of {name} itself"
        )
        for own in (False, True) if name in WITH_POSE else (False,):
            found = measure_trust(rows, labels, assets, shapes_of(assets), basis, theirs=own)
            found.save(folder / f"trust_{name}{'_pose' if own else ''}.json")


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Other estimators' hands, as released and personalised.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--estimators", nargs="+", default=list(CLAIMS), choices=list(CLAIMS))
    parser.add_argument("--people", type=int, default=22)
    parser.add_argument("--frames", type=int, default=20, help="pictures of each person")
    parser.add_argument("--seed", type=int, default=TEST_SEED)
    parser.add_argument("--make_trust", action="store_true", help="measure weights/trust_*.json anew, on other people")
    parser.add_argument("--estimates", help="real results instead of simulated ones")
    parser.add_argument("--format", help="of them")
    parser.add_argument("--labels", help="npz of labels, see above")
    parser.add_argument("--images", help="their pictures, where the format does not say their size")
    parser.add_argument("--mano_dir")
    return parser


def main() -> None:
    args = get_args_parser().parse_args()
    assets = load_hand_assets(args.mano_dir)
    if args.make_trust:
        make_trust(args, assets)
        return
    rows = real(args, assets) if args.estimates else simulated(args, assets)
    if args.json:
        print(json.dumps({"simulated": not args.estimates, "hand": assets.name, "rows": rows}, indent=1))
        return
    line = (
        "{estimator:16s} {treatment:11s} wrist-relative {wrist_relative_mm:6.2f}  camera space {camera_space_mm:7.2f}"
    )
    line += "  zero pose {zero_pose_mm:5.2f} mm"
    for row in rows:
        print(line.format(**row) + (f"  length in 95%: {row['length_in_95']:.2f}" if "length_in_95" in row else ""))


if __name__ == "__main__":
    main()
