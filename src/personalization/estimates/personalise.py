"""An estimator's hands of one person again: one shape, laid on its keypoints and 3D joints, at metric depth."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch

from options.calibrate import NUM_IMAGES
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.images import rows_by_subject
from src.personalization.calibration.population import Population
from src.personalization.estimates.evidence import Estimates, believed
from src.personalization.estimates.one_hand import check_one_hand
from src.personalization.estimates.usual_poses import learnt_poses
from src.personalization.fitting.batch import fit_videos
from src.personalization.fitting.fit import FitOptions, FitResult, PosePriorOptions, fit_frames
from src.personalization.fitting.sequence import SequenceOptions
from src.personalization.pairing import named_by_content
from src.personalization.solver.status import CalibrationError, log_unusable
from src.personalization.terms.hand_size import LengthCue
from src.personalization.terms.pose_prior import PosePrior
from template import HandAssets, HandModel
from template.kinematics import JointsModel, joints_model, posed_points
from template.large_products import full_precision
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)

#: rad, of the hand's orientation and of finger joints: at least so far may rotations lie from the estimator's in the
#: last fit. Where they err in what the picture shows, the keypoints err alike, and poses of 3D joints hold usual poses
#: already: as sure as the trust file says, they would count twice. On 22 to 44 simulated people, none of the
#: benchmark's, wrist-relative errors with a ruler are 4 to 5% lower than without it (HaMeR-, WiLoR-like) and 8 to 12%
#: (MediaPipe-, SAM-3D-Body-like), camera-space errors 1 to 5%.
LEAST_SPREAD = (0.10, 0.25)


@dataclass
class Personalised:
    """N hands, rows as they were read; right-hand convention.

    Attributes:
        identities: by subject number; a single one serves all rows.
        rows: `Predictions` of the hand in use: pose, betas, transl and status of the personalised hand, camera axes;
            keypoints_2d are the estimator's.
        joints: (N,21,3) m, camera frame; reprojection_px: (N,) root mean square distance to the keypoints.
        released: the rows with points, pose and betas as the estimator would write them, for `write_estimates`.
    """

    identities: dict[int, Identity]
    rows: Predictions
    joints: np.ndarray
    reprojection_px: np.ndarray
    released: Predictions


def calibrate_estimates(
    ready: Estimates,
    assets: HandAssets,
    people: Population,
    cues: tuple[LengthCue, ...] = (),
    *,
    accept_conflict: bool = False,
    same_video: bool | None = None,
    device: torch.device | str = "cpu",
    created_by: str = "",
) -> dict[int, Identity]:
    """One identity of each subject from its images (K and keypoints in px); see `calibrate_predictions`.

    Args:
        same_video: see `CalibrationOptions`.

    Raises:
        CalibrationError: nothing usable, several people in what is said to be one, or a length of several people.
    """
    if cues and len(np.unique(ready.rows.subject_id)) > 1:
        raise CalibrationError("hand_length_mm is one person's; calibrate each of several apart (--subject)")
    options = ready.calibration_options(assets, people, device)
    options = replace(options, cues=cues, accept_conflict=accept_conflict, same_video=same_video)
    if not accept_conflict:
        check_one_hand(ready.rows)
    rows, most = named_by_content(believed(ready, assets, people).rows), NUM_IMAGES["--estimates"]
    return calibrate_predictions(rows, assets, options, num_images=most, device=device, created_by=created_by)


def personalise_rows(
    ready: Estimates,
    identities: dict[int, Identity],
    assets: HandAssets,
    device: torch.device | str = "cpu",
    motion: tuple[np.ndarray, np.ndarray] | None = None,
    usual: PosePrior | None = None,
) -> Personalised:
    """Every hand with its subject's shape, its pose and place (m) fitted to its keypoints (px).

    Args:
        identities: by subject number of the rows; a single one serves all of them.
        motion: of frames of videos (N,) the hand that each shows and its time, s: those of a hand are fitted together,
            smoothly. None: each on its own.
        usual: of `usual_poses`; None: learnt from these very rows.

    Raises:
        CalibrationError: a subject without an identity. HandMismatchError: an identity of another hand.
    """
    rows, betas = ready.rows, shapes_of_rows(ready.rows, identities, assets)
    usual = usual_poses(ready, identities, assets, device) if usual is None else usual
    parts, fits = ready.of_people(identities), []
    for own, part in parts:
        model, tensors, trust, options = _last_fit(part, betas[own], assets, device)
        options = replace(options, extra_priors=(usual,))
        with full_precision(torch.device(device)):
            if motion is None:
                fits.append(fit_frames(model, *tensors, trust, options))
                continue
            track, seconds = (value[own] for value in motion)
            order, together = np.lexsort((seconds, track)), SequenceOptions(frame=options)
            given = (trust, order, track[order], together, torch.as_tensor(seconds, dtype=torch.float64))
            fits.append(fit_videos(model, tensors, *given))
    back = torch.as_tensor(np.argsort(np.concatenate([own for own, _ in parts])))
    found = FitResult(**{name: torch.cat([getattr(fit, name) for fit in fits])[back] for name in vars(fits[0])})
    log_unusable(logger, found.status, "hands", "they keep the estimator's pose, and their depth is a guess")
    pose, transl = found.pose.double().cpu(), found.transl.double().cpu()
    joints = HandModel(assets, dtype=torch.float64).joints(pose, torch.as_tensor(betas), transl).numpy()
    status = found.status.cpu().numpy()
    changed = replace(rows, pose=pose.numpy(), betas=betas, transl=transl.numpy(), status=status)
    points = joints.copy()  # as the estimator would name them
    for own, part in parts:
        if part.landmarks is not None:
            theirs_model = joints_model(assets, part.landmarks)
            rest = theirs_model.rest_points(torch.as_tensor(betas[own]))
            found_points = posed_points(theirs_model, pose[own], rest).points + (transl[own] + rest[:, 0])[:, None]
            points[own] = found_points[:, theirs_model.to_standard].numpy()
    image = np.einsum("nij,npj->npi", rows.K.astype(np.float64), points)
    theirs = pose.numpy().copy()
    theirs[:, 0] = np.swapaxes(ready.turn, 1, 2) @ theirs[:, 0]
    released = replace(
        changed,
        pose=theirs,
        joints_3d=(points - points[:, :1]) @ ready.turn,
        keypoints_2d=image[..., :2] / image[..., 2:].clip(1e-3),
    )
    return Personalised(identities, changed, joints, found.reprojection_px.cpu().numpy(), released)


def usual_poses(
    ready: Estimates, identities: dict[int, Identity], assets: HandAssets, device: torch.device | str = "cpu"
) -> PosePrior:
    """How hands are held in these rows (rad), for `personalise_rows` of these and of others like them.

    What the trust file says of rotations knows no joint's neighbours, and rotations that follow the keypoints are held
    by little else. On 32 simulated people, none of the benchmark's, camera-space errors with a ruler were 17.9, 19.1,
    17.8 and 20.6 mm (SAM-3D-Body-, HaMeR-, WiLoR-, MediaPipe-like) with the hand model's own usual poses, and are 16.3,
    17.0, 16.0 and 20.0 mm with learnt ones.
    """
    spread = 1.0 if ready.landmarks is None else ready.landmarks.pose_spread
    betas = shapes_of_rows(ready.rows, identities, assets)
    own, most = max(ready.of_people(identities), key=lambda part: len(part[0]))
    fit = _last_fit(most, betas[own], assets, device)
    with full_precision(torch.device(device)):
        return learnt_poses(assets, *fit, spread)


def _last_fit(
    ready: Estimates, betas: np.ndarray, assets: HandAssets, device: torch.device | str
) -> tuple[JointsModel, tuple[torch.Tensor, ...], torch.Tensor | None, FitOptions]:
    """Model, (pose, betas, K, keypoints), confidence and options of `fit_frames`, usual poses not among them."""
    options, rows = ready.options(assets, Population()), ready.rows
    model = joints_model(assets, ready.landmarks, device, torch.float32)
    given = (rows.pose, betas, rows.K, rows.keypoints_2d)
    tensors = tuple(torch.as_tensor(np.asarray(value), dtype=torch.float32) for value in given)
    trust = None if rows.keypoint_confidence is None else torch.as_tensor(rows.keypoint_confidence)
    said = (options.prior.root_std, options.prior.finger_std)
    return model, tensors, trust, replace(options, prior=PosePriorOptions(*np.maximum(said, LEAST_SPREAD).tolist()))


def shapes_of_rows(rows: Predictions, identities: dict[int, Identity], assets: HandAssets) -> np.ndarray:
    """Betas (N,10) float64 of each row's subject; of a single identity for all."""
    for identity in identities.values():
        identity.check_hand(assets)
    if len(identities) == 1:
        only = next(iter(identities.values()))
        return np.tile(only.betas, (len(rows), 1))
    betas = np.zeros((len(rows), 10))
    for subject, own in rows_by_subject(rows).items():
        if subject not in identities:
            raise CalibrationError(
                f"{rows.source}: no identity of subject {subject}; there are those of {sorted(identities)}"
            )
        betas[own] = identities[subject].betas
    return betas
