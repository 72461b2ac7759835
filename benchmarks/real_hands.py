"""Real hands: what a detector's points become, with and without a calibrated identity.

``python benchmarks/real_hands.py --json [--data ../shared/data]`` prints one object:

* ``desk``: one hand before two calibrated cameras. The hand fitted to camera 0's points, in the second half of the
  instants, against the triangulated points, after one scale for all that makes the median chain from wrist to middle
  fingertip equally long: wrist-relative and after alignment, mm; and the relative spread of the wrist's depth.
  "identity": calibrated from camera 1's first half with a ruler.
* ``scans``: how far fingertips are fitted from the plane of wrist and knuckles, hands lying flat on a scanner, mm.
* ``proportions``: has a landmark model the fingers of real hands? See `proportions`.
* ``betas``: largest mean coefficient over people whom the landmarks did not see: they are learned from the others.
* ``draws``: root mean square difference of the betas from two disjoint draws of a person's pictures, with a ruler, in
  standard deviations that both state; and over the difference's own, in which population, ruler and the error that
  all pictures share, the same for both draws, cancel.
* ``detector``, ``networks`` (our own: ``--keypoints own``): of pictures of one hand each (``signs``, every second one
  mirrored) how many are found and fitted, with which side (mirroring the picture must swap it; of networks: as the
  detector says), and how many keypoints lie within 0.1 of the box of those of the mirrored picture (of networks: of the
  detector's). ``false_alarms``: of drawn pictures without any hand.

What is absent is skipped with the reason. ``out/real_hands`` gets skeletons and meshes over blank ground.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.scenes.real_pictures import routes  # noqa: E402
from src.evaluation.alignment import procrustes_align  # noqa: E402
from src.personalization.calibration.from_keypoints import fit_options  # noqa: E402
from src.personalization.calibration.identity import calibrate_predictions  # noqa: E402
from src.personalization.calibration.population import CalibrationOptions  # noqa: E402
from src.personalization.fitting.from_keypoints import KeypointFit, KeypointFitOptions  # noqa: E402
from src.personalization.landmarks.detections import read_detections  # noqa: E402
from src.personalization.landmarks.shared_fit import fit_shared  # noqa: E402
from src.personalization.landmarks.two_cameras import chain, read_two_cameras  # noqa: E402
from src.personalization.solver.status import usable  # noqa: E402
from src.personalization.terms.hand_size import LengthCue, length_gradient  # noqa: E402
from src.personalization.terms.pose_prior import PALM  # noqa: E402
from src.photos.calibrate import photo_beliefs  # noqa: E402
from src.photos.camera import Camera, pinhole  # noqa: E402
from src.photos.detector.detection import Detection, mirrored  # noqa: E402
from src.photos.hands import PhotoHand, keypoint_hands  # noqa: E402
from template import HandModel, load_hand_assets  # noqa: E402
from template.kinematics import JointsModel, joints_model, posed_points  # noqa: E402
from utils.camera import mirror_intrinsics  # noqa: E402
from utils.drawing.overlay import draw_skeleton, overlay_mesh  # noqa: E402
from utils.identity import Identity  # noqa: E402

#: m, wrist to middle fingertip: of the person at the desk, and of the one whose left hand was photographed.
DESK_LENGTH, LEFT_LENGTH = 0.187, 0.181
#: m, of a ruler.
RULER_STD = 0.003
ONE_PERSON = ("one_person_ten_poses", "one_left_hand_known_camera")
SCANS, SCAN_MM = "flat_on_a_scanner", 0.127
#: m, where a scanned hand is put: so far that its picture is all but orthographic.
SCAN_DEPTH = 1.5


class Setting:
    """The product's route from detections to hands: photos' own beliefs and fits."""

    def __init__(self, output: Path) -> None:
        self.assets, self.output, self.shape = load_hand_assets(), output, None
        self.beliefs: CalibrationOptions = photo_beliefs(self.assets, None, "cpu")
        self.options: KeypointFitOptions = fit_options(self.beliefs)

    def of_person(self, identity: Identity) -> Setting:
        """The same for somebody whose hand is known, and where the detector's points lie on it."""
        known, landmarks = Setting(self.output), self.options.landmarks.of_person(identity)
        known.options = KeypointFitOptions.of_source(landmarks, people=self.options.people)
        known.shape = identity.betas
        return known

    def fit(self, hands: list[PhotoHand]) -> KeypointFit:
        """Each hand on its own."""
        return keypoint_hands(hands).fit(self.assets, self.options, self.shape)

    def identity(self, hands: list[PhotoHand], length: float) -> Identity:
        """One person's, with a ruler of 3 mm."""
        beliefs = replace(self.beliefs, cues=(LengthCue("hand", length, RULER_STD),))
        rows = keypoint_hands(hands).explained(self.fit(hands), self.assets, self.options, 1)
        return calibrate_predictions(rows, self.assets, beliefs, num_images=len(rows))[1]

    def landmarks(self, fit: KeypointFit) -> np.ndarray:
        """(N,21,3) m, the source's points on the fitted hands, camera frame."""
        model = joints_model(self.assets, self.options.landmarks)
        rest = model.rest_points(fit.betas)
        points = posed_points(model, fit.pose, rest).points + (fit.transl + rest[:, 0])[:, None]
        return points[:, model.to_standard].numpy()

    def draw(self, name: str, hands: list[PhotoHand], fit: KeypointFit, every: int = 1) -> None:
        """Skeletons of the detector beside meshes, each over blank ground, in one picture."""
        posed, tiles = HandModel(self.assets, dtype=torch.float64)(fit.pose, fit.betas, fit.transl), []
        for row in range(0, len(hands), every):
            keypoints, K = hands[row].hand.keypoints_2d, hands[row].K.copy()
            low, side = keypoints.min(axis=0), np.ptp(keypoints, axis=0).max()
            scale = 150 / side
            start = low - 35 / scale
            K[:2] *= scale
            K[:2, 2] -= start * scale
            blank = np.full((220, 220, 3), 245, np.uint8)
            skeleton = draw_skeleton(blank, (keypoints - start) * scale, thickness=2)
            mesh = overlay_mesh(blank, posed.vertices[row].numpy(), self.assets.faces, K)
            tiles.append(np.concatenate([skeleton, mesh], axis=1))
        columns = 4
        tiles += [np.full_like(tiles[0], 245)] * (-len(tiles) % columns)
        rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
        cv2.imwrite(str(self.output / f"{name}.png"), np.concatenate(rows)[..., ::-1])


def photo_hand(entry: dict[str, Any], K: np.ndarray, width: int, number: int) -> PhotoHand:
    """A detection of a file as the product sees a hand in a photo."""
    inside = np.where(np.array(entry["inside"], dtype=bool), 1.0, 0.25)
    points, world = np.array(entry["keypoints_2d"], dtype=np.float64), np.array(entry["world_m"])
    hand = Detection(points, inside, entry["side"] == "left", entry["side_score"], world)
    if hand.is_left:
        hand, K = mirrored(hand, width), mirror_intrinsics(K, width)
    return PhotoHand(f"hand {number}", number, hand, K, entry["side"] == "left", Camera(K, "given"))


def desk(setting: Setting, data: Path) -> dict[str, Any]:
    scene = read_two_cameras(data / "detections/stereo_desk.json")
    views = [
        [photo_hand(hand, K, 720, number) for hand, K in zip(pair, scene.K, strict=True)]
        for number, pair in enumerate(scene.hands)
    ]
    wanted = scene.points[0] * DESK_LENGTH / np.median(chain(scene.points[0]))
    half = len(views) // 2
    seen, wanted = [pair[0] for pair in views[half:]], wanted[half:]
    identity = setting.identity([pair[1] for pair in views[:half]], DESK_LENGTH)
    result: dict[str, Any] = {"instants": len(seen)}
    for name, who in (("none", setting), ("identity", setting.of_person(identity))):
        fit = who.fit(seen)
        points = who.landmarks(fit)
        depth = points[:, 0, 2] / wanted[:, 0, 2]
        scaled = points * np.median(chain(wanted)) / np.median(chain(points))
        result[name] = {
            "wrist_relative_mm": 1000 * distance(scaled - scaled[:, :1], wanted - wanted[:, :1]),
            "aligned_mm": 1000 * distance(procrustes_align(points, wanted), wanted),
            "depth_spread": float(depth.std() / depth.mean()),
        }
        setting.draw(f"desk_{name}", seen, fit, every=8)
    return result


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean distance of points (N,21,3)."""
    return float(np.linalg.norm(found - wanted, axis=2).mean())


def scans(setting: Setting, data: Path) -> dict[str, float]:
    hands = []
    for number, picture in enumerate(real(data)[SCANS]["pictures"]):
        focal = SCAN_DEPTH / (SCAN_MM / 1000)
        middle = np.array(picture["hands"][0]["keypoints_2d"]).mean(axis=0)
        K = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1.0]])
        hands.append(photo_hand(picture["hands"][0], K, picture["width"], number))
    fit = setting.fit(hands)
    setting.draw("scans", hands, fit)
    depth = setting.landmarks(fit)[..., 2]
    return {"tip_depth_mm": float(1000 * np.abs(depth[:, 8::4] - depth[:, PALM].mean(axis=1, keepdims=True)).mean())}


def betas(setting: Setting, data: Path) -> dict[str, float]:
    file = data / "detections/mediapipe_real.json"
    learning, others = read_detections([file], ONE_PERSON, {SCANS: SCAN_MM}).halves(seed=0)
    left_out = {learning.names[number] for number in others.person}
    scene = read_two_cameras(data / "detections/stereo_desk.json").first_half(DESK_LENGTH)
    taught = fit_shared(setting.assets, learning.and_in_space(scene.points[0], "desk"))
    blind = Setting(setting.output)
    landmarks = replace(setting.options.landmarks, offsets=taught.offsets, bends=taught.bends)
    blind.options = replace(setting.options, landmarks=landmarks)
    hands, people = [], []
    for name, group in real(data).items():
        for picture in group["pictures"] if name not in (SCANS, ONE_PERSON[1]) else []:
            alone = name if name in ONE_PERSON else f"{name} {picture['picture']}"
            person = alone if picture.get("person") is None else f"{name} {picture['person']}"
            if person in left_out and picture["hands"] and picture["hands"][0]["side_score"] >= 0.8:
                guess = pinhole(picture["width"], picture["height"], 60)
                hands.append(photo_hand(picture["hands"][0], guess, picture["width"], len(hands)))
                people.append(person)
    fit = blind.fit(hands)
    setting.draw("people", hands, fit, every=2)
    good = usable(fit.status).numpy()
    means = [
        fit.betas[torch.as_tensor(good & (np.array(people) == one))].mean(dim=0).numpy() for one in sorted(set(people))
    ]
    mean = np.nanmean(np.stack(means), axis=0)
    return {"largest_mean": float(np.abs(mean).max()), "people": len(means)}


def draws(setting: Setting, data: Path, count: int = 4, size: int = 15) -> dict[str, float]:
    group, ratios, own = real(data)[ONE_PERSON[1]], [], []
    hands = [
        photo_hand(picture["hands"][0], np.array(group["K"]), picture["width"], number)
        for number, picture in enumerate(group["pictures"])
        if picture["hands"]
    ]
    hands = [hand for hand in hands if hand.is_left]
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(len(hands))
        one, other = (
            setting.identity([hands[i] for i in part], LEFT_LENGTH) for part in (order[:size], order[size : 2 * size])
        )
        std = np.sqrt(np.diag(one.covariance) + np.diag(other.covariance))
        ratios.append(np.square((one.betas - other.betas) / std))
        covariance = of_difference(setting, one, size) + of_difference(setting, other, size)
        own.append((one.betas - other.betas) ** 2 / np.diag(covariance))
    return {
        "betas_over_std": float(np.sqrt(np.mean(ratios))),
        "betas_over_std_of_difference": float(np.sqrt(np.mean(own))),
        "pictures": size,
        "draws": count,
    }


def of_difference(setting: Setting, identity: Identity, size: int) -> np.ndarray:
    """The part (10,10) of a calibration's covariance V that another draw of ``size`` pictures of the person has not.

    Its data, of precision J = V^-1 - P^-1, have the variance J^-1 of a mean whose terms share the part r of theirs, of
    which (1 - r) / (1 + (n - 1) r) is each draw's own. V J of it is in the betas: V - V P^-1 V, times that.
    """
    model, r = JointsModel(setting.assets), setting.beliefs.error_correlation
    slope = length_gradient(model, torch.as_tensor(identity.betas)[None], "hand")[1][0].numpy()
    known = np.linalg.inv(setting.beliefs.population.betas_covariance) + np.outer(slope, slope) / RULER_STD**2
    own = (1 - r) / (1 + (size - 1) * r)
    return own * (identity.covariance - identity.covariance @ known @ identity.covariance)


def real(data: Path) -> dict[str, Any]:
    """Detections of real pictures, by set."""
    return json.loads((data / "detections/mediapipe_real.json").read_text(encoding="utf-8"))


def proportions(setting: Setting, data: Path) -> dict[str, Any]:
    """Middle finger, knuckle to tip along its points, over wrist to that knuckle.

    Returns:
        "joints", "model": mean and standard deviation over people, of joints and through the landmark model; medians of
        the flat hands in the picture, of the points of two cameras, and of the detector's own 3D points.
    """
    people, sets = setting.beliefs.population, real(data)
    own = [h["world_m"] for group in sets.values() for picture in group["pictures"] for h in picture["hands"]]
    seen = [np.pad(picture["hands"][0]["keypoints_2d"], ((0, 0), (0, 1))) for picture in sets[SCANS]["pictures"]]
    some = torch.as_tensor(
        np.random.default_rng(0).multivariate_normal(people.betas_mean, people.betas_covariance, 300)
    )
    straight, result = torch.eye(3, dtype=torch.float64).expand(len(some), 16, 3, 3), {}
    for name, landmarks in (("joints", None), ("model", setting.options.landmarks)):
        model = joints_model(setting.assets, landmarks)
        points = posed_points(model, straight, model.rest_points(some)).points[:, model.to_standard]
        found = ratio_of(points.numpy())
        result[name] = [float(found.mean()), float(found.std())]
    triangulated = read_two_cameras(data / "detections/stereo_desk.json").points[0]
    for name, points in (("flat", np.array(seen)), ("two_cameras", triangulated), ("own_3d_points", np.array(own))):
        result[name] = float(np.median(ratio_of(points)))
    return result


def ratio_of(points: np.ndarray) -> np.ndarray:
    """Of points (N,21,2 or 3), any unit."""
    return chain(points) / np.linalg.norm(points[:, 9] - points[:, 0], axis=1) - 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Real hands, from what a detector says of real pictures.")
    parser.add_argument("--data", default="../shared/data", help="folder with detections/ and pictures/")
    parser.add_argument("--output", default="out/real_hands")
    parser.add_argument("--pictures", type=int, default=40, help="of the signs, for each route")
    names = ("desk", "scans", "proportions", "betas", "draws", "detector", "networks")
    parser.add_argument("--only", nargs="+", choices=names, help="these parts alone")
    parser.add_argument("--json", action="store_true", help="one line")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    data, output = Path(args.data), Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    setting = Setting(output)
    named = {"desk": desk, "scans": scans, "betas": betas, "draws": draws, "proportions": proportions}
    parts: dict[str, Callable[[], Any]] = {name: lambda part=part: part(setting, data) for name, part in named.items()}
    parts |= routes(data, args.pictures, output)
    result: dict[str, Any] = {}
    for name in args.only or parts:
        try:
            result[name] = parts[name]()
        except (FileNotFoundError, ImportError) as error:
            result[name] = {"skipped": str(error)}
    print(json.dumps(result, indent=None if args.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
