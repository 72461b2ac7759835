"""Estimates as the solvers need them: of the hand in use, a starting pose for each, in the camera's axes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from src.personalization.calibration.from_keypoints import keypoint_options
from src.personalization.calibration.images import rows_by_subject
from src.personalization.calibration.population import CalibrationOptions, Population
from src.personalization.estimates.sides import check_sides, check_sides_in_pictures
from src.personalization.estimates.trust import LIKE, MAKE, Trust, find_trust
from src.personalization.fitting.fit import FitOptions, observe, reprojection_rmse
from src.personalization.fitting.from_joints import LEAST_HANDS, MAX_MISFIT_MM, JointFitOptions, fit_joints
from src.personalization.fitting.from_keypoints import (
    MAX_MISFIT_BOX,
    KeypointFitOptions,
    box_misfit,
    fit_keypoints,
    ray_turn,
)
from src.personalization.fitting.translation import wrist_from_keypoints
from src.personalization.landmarks.model import LandmarkModel, find_landmarks
from src.personalization.solver.status import CalibrationError, usable
from src.personalization.terms.inputs import check_frames
from src.personalization.terms.noise import KeypointNoise
from template import HandAssets
from template.kinematics import JointsModel, joints_model, posed_points
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)

#: Standard deviations of the mean predicted betas from what the trust file expects (root mean square), beyond which
#: they say nothing.
UNBELIEVABLE = 3.0
#: Formats whose landmark models there are; of the others points are taken for the hand's joints.
LANDMARKS = ("mediapipe", "sam3d_body")
#: Of these, detectors, whose 2D points are not their 3D points' projection.
DETECTORS = ("mediapipe",)
#: A landmark model of fewer people is said to be one.
FEW_PEOPLE = 10
#: Estimators that look at a crop, as along its axis: their axes are turned from there to the camera's.
CROPPED = ("hamer", "wilor", "wilor_mini", "fasthamer", "mediapipe", "frankmocap")


def landmarks_of(format: str, assets: HandAssets) -> LandmarkModel | None:
    """The shipped landmark model of a format for this hand, if there is one; says in the log how little it rests on."""
    found = find_landmarks(format, assets) if format in LANDMARKS else None
    if found is not None and found.people < FEW_PEOPLE:
        logger.warning(
            "where the points of %s lie on the hand was learnt from %d hands of %d people: weights/landmarks_%s.json",
            format, found.hands, found.people, format,
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Estimates:
    """Hands of another estimator, made ready.

    Attributes:
        rows: `Predictions` of the hand in use: pose (of the estimator, or of its points) in the camera's axes; betas
            that it says, or that its 3D joints say at their own scale, or None; keypoints. What 3D joints say is in
            pose and betas, which are believed as far as `trust` says; they do not count again.
        own_pose: the poses and betas are the estimator's.
        turn: (N,3,3) from the estimator's axes to the camera's.
        trust, landmarks: of this estimator.
    """

    rows: Predictions
    own_pose: bool
    turn: np.ndarray
    trust: Trust
    landmarks: LandmarkModel | None

    def options(self, assets: HandAssets, people: Population) -> CalibrationOptions:
        """What is believed of them."""
        return self.trust.options(assets, people, self.landmarks)

    def calibration_options(
        self, assets: HandAssets, people: Population, device: torch.device | str = "cpu"
    ) -> CalibrationOptions:
        """What a calibration believes of them: of a detector's points as of those in photos (`keypoint_options`), for
        their noise was measured on real ones, and where they lie on this hand can be solved for; else `options`."""
        options = self.options(assets, people)
        measured = self.landmarks is not None and self.landmarks.name in DETECTORS
        if not measured or self.trust != find_trust(self.rows.model_name, self.own_pose):
            return options
        return replace(keypoint_options(assets, people, device, landmarks=self.landmarks), depths=options.depths)

    def of_people(self, identities: Mapping[int, Identity]) -> list[tuple[np.ndarray, Estimates]]:
        """Row numbers (M,), and the estimates, of each person whose own points were calibrated, and of all others; a
        single identity serves all rows."""
        whole = np.arange(len(self.rows))
        people = rows_by_subject(self.rows) if len(identities) > 1 else dict.fromkeys(identities, whole)
        known = {} if self.landmarks is None else people
        own = {number: rows for number, rows in known.items() if self.landmarks.name in identities[number].landmarks}
        others = np.setdiff1d(whole, np.concatenate([whole[:0], *own.values()]))
        parts = [(rows, self.landmarks.of_person(identities[number])) for number, rows in own.items()]
        return [
            (rows, replace(self, rows=self.rows.select(rows), turn=self.turn[rows], landmarks=landmarks))
            for rows, landmarks in [*parts, (others, self.landmarks)]
            if len(rows)
        ]


def turn_of(estimates: Predictions) -> torch.Tensor:
    """(N,3,3) from the estimator's axes to the camera's; the keypoints (px) say where a crop's axis is."""
    K, seen = torch.as_tensor(estimates.K).double(), torch.as_tensor(estimates.keypoints_2d).double()
    if estimates.model_name in CROPPED:
        return ray_turn(K, seen.mean(dim=1))
    return torch.eye(3, dtype=torch.float64).expand(len(K), 3, 3)


def prepare(
    estimates: Predictions,
    assets: HandAssets,
    people: Population,
    trust: Trust | None = None,
    landmarks: LandmarkModel | None = None,
    theirs: bool | None = None,
    device: torch.device | str = "cpu",
    sides_known: bool = False,
) -> Estimates:
    """Estimates of one hand model and source as evidence for the hand ``assets``.

    Args:
        estimates: of `src.estimators.read_estimates`, with the real K (px).
        trust: in the estimator; None: `find_trust`. landmarks: where its points lie on the hand.
        theirs: the estimator's pose and betas are of ``assets``; None: if both are MANO.
        sides_known: most sides were found right in a sample of these images: a mirrored hand is named, no more.

    Raises:
        CalibrationError: neither keypoints nor 3D joints, or a K that the estimator made up.
    """
    if estimates.camera.startswith("made up"):
        raise CalibrationError(
            f"{estimates.source}: K is needed. Its camera is {estimates.camera}, by which a hand is as large as one "
            "likes; give the K (or --fov) of the pictures"
        )
    if estimates.keypoints_2d is None:
        raise CalibrationError(
            f"{estimates.source}: no 2D keypoints, and without them no hand has a place; metric 3D joints alone are "
            "for handid.calibrate(joints=...) and handid.fit(joints=...)"
        )
    own = estimates.hand_name == assets.name == "MANO" if theirs is None else theirs
    own = own and estimates.pose is not None and estimates.betas is not None
    if trust is not None and trust.name not in (estimates.model_name, LIKE.get(estimates.model_name)):
        logger.warning("the trust given is of %s, the estimates are of %s", trust.name, estimates.model_name)
    trust = find_trust(estimates.model_name, own) if trust is None else trust
    joints, confidence = estimates.joints_3d, estimates.keypoint_confidence
    confidence = None if confidence is None else torch.as_tensor(confidence)
    K, seen = torch.as_tensor(estimates.K).double(), torch.as_tensor(estimates.keypoints_2d).double()
    turn = turn_of(estimates)
    prior = people.shape_prior.to(device)
    search = KeypointFitOptions.of_source(landmarks, people=people)
    # Flat, a hand is as well the other one from behind: sides are told by usual poses.
    search = replace(search, noise=replace(search.noise, std_box=trust.keypoint_std_box), flat=False)
    if joints is not None:
        check_sides(
            estimates, torch.as_tensor(joints).double(), trust.joint_std_mm / 1000, assets, landmarks, sides_known
        )
    if own:
        pose = torch.as_tensor(estimates.pose).double()
        pose[:, 0] = turn @ pose[:, 0]
        betas, status = estimates.betas, None
    elif joints is not None:
        options = JointFitOptions(std=trust.joint_std_mm / 1000, shape_prior=prior, landmarks=landmarks)
        points = torch.as_tensor(joints).double() @ turn.mT
        fit = fit_joints(assets, points, None, options=options, device=device)
        pose, betas, status = fit.pose, fit.betas.cpu().numpy(), fit.status
        off = 1000 * float(fit.residual[usable(status)].median()) if bool(usable(status).any()) else 0.0
        if off > MAX_MISFIT_MM:
            raise CalibrationError(
                f"{estimates.source}: the hands' 3D joints are {off:.0f} mm (median) off those of any hand; are they "
                "the 21 joints in standard order, the wrist, then thumb to little finger, each from the palm outwards?"
            )
        model = joints_model(assets, landmarks, device)
        elsewhere = usable(status) & (misfit(model, pose, fit.betas, K, seen, confidence) > MAX_MISFIT_BOX)
        if bool(elsewhere.any()):
            said = (
                f"{estimates.source}: of {int(elsewhere.sum())} of {len(elsewhere)} hands the 3D joints contradict the "
                "2D points"
            )
            if len(elsewhere) >= LEAST_HANDS and int(elsewhere.sum()) > len(elsewhere) // 2:
                raise CalibrationError(
                    f"{said}: their axes are not the camera's (x right, y down, z forward), or they are of other rows "
                    "or pictures, or K is wrong; mend them, or leave the 3D joints out"
                )
            logger.warning("%s, which are believed alone there", said)
            given = (None if part is None else part[elsewhere.cpu()] for part in (seen, K, confidence))
            pose[elsewhere] = fit_keypoints(assets, *given, options=search, device=device).pose
    else:
        found = fit_keypoints(assets, seen, K, confidence, options=search, device=device)
        if not sides_known:
            check_sides_in_pictures(estimates, found, assets, search, device)
        pose, betas, status = found.pose, None, found.status
        off = box_misfit(found, seen, confidence)
        if len(off) and float(off.median()) > MAX_MISFIT_BOX:
            raise CalibrationError(
                f"{estimates.source}: the hands lie {float(off.median()):.2f} of their keypoints' box off these "
                "(median); are they the 21 points in standard order, x before y?"
            )
    if status is not None and not bool(usable(status).all()):
        lost = int((~usable(status)).sum())
        said = f"{estimates.source}: {lost} of {len(estimates)} hands do not fit their points"
        if lost == len(estimates):
            raise CalibrationError(f"{said}; are they the 21 joints of hands?")
        logger.warning("%s", said)
    rows = replace(
        estimates, pose=pose.cpu().numpy(), betas=betas, joints_3d=None, hand_name=assets.name, hand_hash=assets.hash
    )
    return Estimates(rows, own, turn.numpy(), trust, landmarks)


def misfit(
    model: JointsModel,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None,
) -> torch.Tensor:
    """How far hands are from their keypoints (N,21,2) px where they explain them best, over the keypoints' box: (N,)
    root mean square; infinite where no place does. K: (N,3,3) px; confidence: (N,21)."""
    inputs = check_frames(pose, betas, K, keypoints, confidence)
    seen = observe(model, inputs, FitOptions(noise=KeypointNoise(std_box=1.0)))
    points = posed_points(model, inputs.pose, model.rest_points(inputs.betas)).points
    wrist, placed = wrist_from_keypoints(points, seen.projections, seen.keypoints, seen.weights)
    off = reprojection_rmse(points + wrist[:, None], inputs.K, seen.keypoints[:, 0], seen.weights[:, 0])
    return torch.where(placed, off * seen.weights.amax(dim=(1, 2)).sqrt(), torch.inf)


def believed(ready: Estimates, assets: HandAssets, people: Population) -> Estimates:
    """Without its betas where they are none that the trust file allows, said in the log.

    Another hand model's points (MHR's, MediaPipe's) make a smaller or larger hand of everybody; taken for what they are
    not, a little too small would become far too small, since betas count for more than they say.
    """
    if ready.rows.betas is None:
        return ready
    network = ready.trust.population(people, assets).network
    assert network is not None
    doubted = False
    for subject, own in rows_by_subject(ready.rows).items():
        off = ready.rows.betas[own].astype(np.float64).mean(axis=0) - network.gain @ people.betas_mean - network.offset
        spread = network.gain @ people.betas_covariance @ network.gain.T + network.systematic + network.noise / len(own)
        worst = float(np.sqrt(np.mean(off**2 / np.diag(spread))))
        if worst > UNBELIEVABLE:
            doubted = True
            logger.warning(
                "subject %d: the shapes of %s are %.1f standard deviations from what is known of it, so they say "
                "nothing here of anybody's size (weights/trust_*.json is simulated; measure it: %s)",
                subject, ready.trust.name, worst, MAKE,
            )  # fmt: skip
    return replace(ready, rows=replace(ready.rows, betas=None)) if doubted else ready
