"""The Python door of fitting: anybody's 2D keypoints, or points in space, to posed hands in metres."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from src.personalization.calibration.population import Population, shipped_population
from src.personalization.estimates.doubts import doubt_joints, doubt_points, doubt_side
from src.personalization.fitting.fit import FitOptions, fit_frames
from src.personalization.fitting.from_joints import JointFitOptions, fit_joints
from src.personalization.fitting.from_keypoints import DETECTOR_NOISE, KeypointFitOptions, fit_keypoints
from src.personalization.landmarks.model import LandmarkModel, load_landmarks
from src.personalization.solver.status import Status, usable
from src.personalization.terms.hand_size import opened_identity
from template import HandAssets, HandModel, mirror_pose, right_hand
from template.kinematics import joints_model
from utils.artifact_checks import ArtifactError
from utils.cameras.intrinsics import checked_intrinsics
from utils.identity import Identity
from utils.short_repr import ShortRepr

Array = np.ndarray | torch.Tensor
SIDES = ("right", "left")


@dataclass(repr=False)
class FittedHands(ShortRepr):
    """N posed hands in the camera frame (OpenCV axes, metres); arrays of the kind that the keypoints were.

    Attributes:
        joints: (N,21,3) standard order; vertices: (N,778,3).
        pose: (N,16,3,3) rotations relative to the parent; betas: (N,10); transl: (N,3), wrist - J0(betas). They pose
            the hand model that was given; those of left hands pose its mirror image (`template.mirror_assets`), their
            fingertips are the right hand's vertices (`HandModel` takes manopth's left ones).
        usable: (N,) bool; where it is False the hand is a guess at a typical depth, and ``status`` says why.
        status: (N,) names, e.g. "converged", "iteration_limit", "no_keypoints" (`solver.status.Status`).
        reprojection_px: (N,) root mean square distance to the keypoints, weighted by confidence; NaN of joints, and
            where the hand is not usable.
        faces: (1538,3) vertex numbers.
        residual_mm: (N,) of joints: root mean square distance to them, NaN where the hand is not usable; std_mm: of a
            coordinate, as given or learnt.
        covariance: (N,61,61), of joints: pose (48 local rotation increments, rad), wrist (m), betas, of the hand in the
            right-hand convention.
    """

    joints: Array
    vertices: Array
    pose: Array
    betas: Array
    transl: Array
    usable: Array
    status: list[str]
    reprojection_px: Array
    faces: np.ndarray
    residual_mm: Array | None = None
    std_mm: float | None = None
    covariance: Array | None = None


def fit(
    keypoints: Array | None = None,
    K: Array | None = None,
    *,
    joints: Array | None = None,
    hand: HandAssets | None = None,
    betas: Array | None = None,
    identity: Identity | str | os.PathLike | None = None,
    confidence: Array | None = None,
    pose: Array | None = None,
    side: str = "right",
    keypoint_std_px: float | None = None,
    joint_std_mm: float | None = None,
    landmarks: LandmarkModel | str | os.PathLike | None = None,
    device: torch.device | str = "cpu",
) -> FittedHands:
    """Fit pose and position, and the shape if it is not known, of every hand on its own.

    Args:
        keypoints: (N,21,2) px, standard order (wrist, then thumb to little finger from the palm outwards); the centre
            of the first pixel is (0, 0). NaN where unseen needs a confidence of zero there.
        K: (3,3) or (N,3,3) intrinsics, px of the same images.
        joints: instead of both, (N,21,3) points in space, m, standard order, any right-handed frame (Leap, motion
            capture, triangulated; of Unity negate an axis), `confidence` zero where one is missing.
        hand: the right hand's model, also for left hands; None: `load_hand_assets`.
        betas: (10,) or (N,10) a known shape. A single camera cannot see the size of a hand, so give one if you can.
        identity: of `calibrate`, or its file, instead of betas, of that side. With neither, shapes are fitted with
            the population as prior.
        confidence: (N,21) in [0,1]; None: all one.
        pose: (N,16,3,3) a network's rotations, camera frame, to start from and to stay near; several times faster.
            None: every orientation is tried.
        keypoint_std_px: how far keypoints are usually off, px. None: a twentieth of the hand's box, which suits
            detectors in the wild; 1 to 3 for a network trained on such images.
        joint_std_mm: of a coordinate of ``joints``; None: learnt from all of them together.
        landmarks: whose points these are, e.g. "mediapipe", or the file of `src.personalization.landmarks.learn`: a
            detector's wrist, knuckles and tips are not the hand model's. None: they are.
        device: where to compute.

    Raises:
        ValueError: a shape, a side, a number that is none, a K (3,3), or all K (N,3,3), that are no camera's (single
            ones of many are "bad_intrinsics"), an option of the other kind, or betas and an identity.
        TypeError: a hand that is no `HandAssets`, an identity that is none.
        FileNotFoundError: no such landmarks.
        ArtifactError: an identity or landmarks of another hand.
    """
    if side not in SIDES:
        raise ValueError(f"side is {side!r}; choose one of {SIDES}")
    for name, std in (("keypoint_std_px", keypoint_std_px), ("joint_std_mm", joint_std_mm)):
        if std is not None and not (np.ndim(std) == 0 and 0 < std < float("inf")):
            raise ValueError(f"{name} is {std}; it must be a positive number (None: as the default says)")
    std_px, std_mm = (None if std is None else float(std) for std in (keypoint_std_px, joint_std_mm))
    if joints is not None:
        if std_px is not None:
            raise ValueError("keypoint_std_px is of keypoints; joints take joint_std_mm")
        if keypoints is not None or K is not None or pose is not None:
            raise ValueError("joints are fitted without keypoints, K and pose")
        given, points = joints, _tensor(joints, "joints", (None, 21, 3))
    elif keypoints is None or K is None:
        raise ValueError("give keypoints (N,21,2) px and K, or joints (N,21,3) m")
    elif std_mm is not None:
        raise ValueError("joint_std_mm is of joints; keypoints take keypoint_std_px")
    else:
        given, points = keypoints, _tensor(keypoints, "keypoints", (None, 21, 2))
        camera = _tensor(K, "K", (3, 3) if np.ndim(K) == 2 else (len(points), 3, 3))
        if camera.dim() == 2:
            checked_intrinsics(camera.numpy(), "of all hands")
        else:
            camera = _only_cameras(camera)
        camera = camera.expand(len(points), 3, 3)
    n, left, give = len(points), side == "left", _like(given)
    trust = None if confidence is None else _tensor(confidence, "confidence", (n, 21))
    if trust is not None and not ((trust >= 0) & (trust <= 1)).all():
        raise ValueError(f"confidence spans [{trust.min():g}, {trust.max():g}]; it must be in [0,1], zero where unseen")
    assets = right_hand(hand)
    if identity is not None and betas is not None:
        raise ValueError("give betas or an identity, not both")
    shape = betas
    if identity is not None:
        identity = opened_identity(identity, assets)
        shape = identity.betas
        if identity.side not in (side, "both"):
            raise ArtifactError(
                f"{identity.source}: is of a {identity.side} hand, these are {side} ones; if both are one person's, "
                "give betas=identity.betas"
            )
    if shape is not None:
        shape = _tensor(shape, "betas", (10,) if np.ndim(shape) == 1 else (n, 10)).expand(n, 10)
        if not torch.isfinite(shape).all():
            raise ValueError(f"betas are not finite: {shape[~torch.isfinite(shape).all(dim=1)][0].tolist()}")
    if landmarks is not None:
        if not isinstance(landmarks, LandmarkModel):
            landmarks = load_landmarks(landmarks, assets.hash)
        landmarks = landmarks.of_person(identity)
    population = shipped_population(assets)
    if joints is not None:
        of_joints = JointFitOptions(
            std=None if std_mm is None else std_mm / 1000,
            shape_prior=None if population is None else population.shape_prior,
            landmarks=landmarks,
        )
        points = points * points.new_tensor([-1.0 if left else 1.0, 1.0, 1.0])
        posed = fit_joints(assets, points, trust, shape, of_joints, device)
        residual = torch.where(usable(posed.status), 1000 * posed.residual, torch.nan)
        doubt_joints(assets, points, trust, residual, replace(of_joints, std=posed.std), side)
        more = {"residual_mm": give(residual), "std_mm": 1000 * posed.std}
        return replace(_posed(posed, assets, left, give), covariance=give(posed.covariance), **more)
    start = None if pose is None else _tensor(pose, "pose", (n, 16, 3, 3))
    if left:  # a camera that looks at the mirror image, x -> -x
        points = torch.stack([2 * camera[:, None, 0, 2] - points[..., 0], points[..., 1]], dim=-1)
        camera = camera * camera.new_tensor([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])  # its skew
        start = None if start is None else mirror_pose(start)
    noise = replace(DETECTOR_NOISE if landmarks is None else landmarks.noise(), std_px=std_px)
    if start is None:
        search = KeypointFitOptions.of_source(landmarks, noise=noise, people=population)
        found = fit_keypoints(assets, points, camera, trust, shape, None, search, device)
        doubt_side(doubt_points(found, points, trust), points, camera, trust, assets, search, side, device)
        return _posed(found, assets, left, give)
    # How a user's network errs, and how far its hands are away, nobody measured.
    options = replace(FitOptions(), noise=noise, evidence_rounds=0 if shape is None else 2)
    if shape is None:
        prior = (population or Population()).shape_prior.to(device)
        options, shape = replace(options, shape_prior=prior), prior.mean.expand(n, 10)
    model = joints_model(assets, landmarks, device)
    near = fit_frames(model, start, shape, camera, points, trust, options)
    doubt_points(near, points, trust)
    return _posed(near, assets, left, give)


def _only_cameras(K: torch.Tensor) -> torch.Tensor:
    """K (N,3,3) px, NaN where `checked_intrinsics` refuses one.

    Raises:
        ValueError: it refuses all, or one with two negative focal lengths.
    """
    kept, whose = np.unique(K.numpy(), axis=0, return_inverse=True)
    errors = []
    for number, one in enumerate(kept):
        try:
            checked_intrinsics(one, f"of hand {int(np.argmax(whose.reshape(-1) == number))}")
        except ValueError as error:
            errors.append(error)
            if one[0, 0] <= 0 and one[1, 1] <= 0:
                raise
            kept[number] = np.nan
    if errors and len(errors) == len(kept):
        raise errors[0]
    return torch.from_numpy(kept[whose.reshape(-1)])


def as_seen(
    assets: HandAssets,
    pose: torch.Tensor,
    betas: torch.Tensor,
    transl: torch.Tensor,
    status: torch.Tensor,
    left: torch.Tensor,
) -> dict[str, Any]:
    """Of N hands in the right-hand convention ``joints``, ``vertices``, ``transl`` (m), ``pose``, ``usable``, float64,
    and the names of their ``status``; those that are left (N,) of left hands."""
    pose, transl = pose.double().cpu(), transl.double().cpu()
    posed = HandModel(assets, dtype=torch.float64)(pose, betas.double().cpu(), transl)
    flip = torch.where(left[:, None], transl.new_tensor([-1.0, 1.0, 1.0]), 1.0)
    return {
        "joints": posed.joints * flip[:, None],
        "vertices": posed.vertices * flip[:, None],
        "pose": torch.where(left[:, None, None, None], mirror_pose(pose), pose),
        "transl": transl * flip,
        "usable": usable(status),
        "status": [Status(value).name.lower() for value in status.tolist()],
    }


def _posed(found: Any, assets: HandAssets, left: bool, give: Any) -> FittedHands:
    """What was found, as the caller's kind of arrays, left hands left."""
    whose = torch.full((len(found.pose),), left)
    seen = as_seen(assets, found.pose, found.betas, found.transl, found.status, whose)
    unknown = torch.full_like(found.betas[:, 0], torch.nan)
    misfit = getattr(found, "reprojection_px", unknown)
    misfit = torch.where(torch.as_tensor(seen["usable"]), misfit, unknown)
    return FittedHands(
        **{name: value if name == "status" else give(value) for name, value in seen.items()},
        betas=give(found.betas),
        reprojection_px=give(misfit),
        faces=(assets.faces[:, ::-1] if left else assets.faces).copy(),
    )


def _tensor(value: Any, name: str, shape: tuple[int | None, ...]) -> torch.Tensor:
    try:  # a copy: views of any direction, lists of tensors, numbers of any type
        given = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not numbers of shape {shape} ({error})") from error
    found = given.detach().cpu().double()
    if found.dim() != len(shape) or any(want not in (None, got) for want, got in zip(shape, found.shape, strict=True)):
        raise ValueError(f"{name} has shape {tuple(found.shape)}; it must be {shape} (None: any length)")
    return found


def _like(given: Array) -> Any:
    """A function that turns tensors into the kind of array that was given, numbers as float32."""

    def convert(value: torch.Tensor) -> Array:
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
        return value.to(given.device) if isinstance(given, torch.Tensor) else value.numpy()

    return convert
