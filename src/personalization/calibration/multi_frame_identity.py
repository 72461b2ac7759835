"""Joint calibration of `Predictions`: images of one subject to an `Identity` with its covariance."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch

from src.personalization.calibration.averaged_identity import make_identity
from src.personalization.calibration.multi_frame import JointOptions, JointResult, calibrate_joint, image_information
from src.personalization.calibration.multi_view import ViewGroups, calibrate_views
from src.personalization.calibration.selection import choose_images
from src.personalization.solver.status import CalibrationError, Status, count_status, usable
from template.kinematics import JointsModel
from src.personalization.terms.shape_terms import LengthCue, cue_conflict
from template import HandAssets
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)

#: A cue further than this from what the images say, in standard deviations of the difference, is refused.
MAX_CONFLICT = 4.0


@dataclass(frozen=True)
class Evidence:
    """What joint calibration may use beside predictions and keypoints.

    Attributes:
        joint: priors, noise and length cues.
        wrist_depth: (N,) m measured depth of the wrist in each row, NaN where unknown.
        wrist_depth_std: m.
        views: which rows are views of one instant, and where their cameras stand; None: every row alone.
        accept_conflict: use a cue even where it contradicts the images.
    """

    joint: JointOptions = JointOptions()
    wrist_depth: np.ndarray | None = None
    wrist_depth_std: float = 0.01
    views: ViewGroups | None = None
    accept_conflict: bool = False

    def rows(self, rows: np.ndarray) -> Evidence:
        """The evidence of some rows."""
        depth = None if self.wrist_depth is None else self.wrist_depth[rows]
        return replace(self, wrist_depth=depth, views=None if self.views is None else self.views.rows(rows))

    def with_predicted_shapes(self, betas: np.ndarray) -> Evidence:
        """The evidence with the network's betas (N,10) of the rows taken into the prior on the shape."""
        if self.joint.network is None:
            return self
        moments = self.joint.network.update(betas, *self.joint.prior_moments())
        mean, covariance = (torch.as_tensor(value) for value in moments)
        return replace(self, joint=replace(self.joint, shape_mean=mean, shape_covariance=covariance))

    @property
    def scale_evidence(self) -> str:
        """What fixes the absolute size."""
        names = ["ruler" if cue.name == "hand" else "known bone" for cue in self.joint.cues]
        names += ["cameras"] if self.views is not None else []
        names += ["depth"] if self.wrist_depth is not None and np.isfinite(self.wrist_depth).any() else []
        return " + ".join(dict.fromkeys(names)) or ("prior" if self.joint.network is None else "prior + network")


def joint_identity(
    own: Predictions,
    assets: HandAssets,
    evidence: Evidence,
    *,
    num_images: int = 20,
    select: str = "random",
    seed: int = 0,
    subject: int,
    device: torch.device | str = "cpu",
    created_by: str = "",
) -> Identity:
    """Calibrate one subject from images with poses and 2D keypoints.

    Raises:
        CalibrationError: no pose, no usable image, the solver diverged, or a cue contradicts the images.
    """
    if own.pose is None or own.keypoints_2d is None:
        raise CalibrationError(f"{own.source} lacks poses or 2D keypoints; joint calibration needs both")
    model = JointsModel(assets, dtype=torch.float64, device=device)
    rows = _choose(model, own, evidence, num_images, select, seed)
    own, evidence = own.select(rows), evidence.rows(rows)
    if own.betas is not None:
        evidence = evidence.with_predicted_shapes(own.betas.astype(np.float64))
    result = _solve(model, own, evidence, evidence.joint)
    _check(result, own, subject)
    for cue in evidence.joint.cues:
        others = tuple(other for other in evidence.joint.cues if other is not cue)
        without = _solve(model, own, evidence, replace(evidence.joint, cues=others))
        _check_cue(model, without, cue, subject, evidence.accept_conflict)
    kept = own if evidence.views is not None else own.select((result.frame_status[0] == Status.CONVERGED).cpu().numpy())
    return make_identity(
        result.betas[0].cpu().numpy(),
        result.covariance[0].cpu().numpy(),
        assets,
        kept,
        method="joint",
        subject=subject,
        scale_evidence=evidence.scale_evidence,
        created_by=created_by,
    )


def _solve(model: JointsModel, own: Predictions, evidence: Evidence, options: JointOptions) -> JointResult:
    pose, K, keypoints, confidence = _tensors(own)
    start = torch.zeros(1, 10) if own.betas is None else torch.as_tensor(own.betas.astype(np.float64).mean(0))[None]
    if evidence.views is not None:
        return calibrate_views(model, pose, start, K, keypoints, confidence, evidence.views, options)
    depth = None if evidence.wrist_depth is None else torch.as_tensor(evidence.wrist_depth)[None]
    batch = (pose[None], start, K[None], keypoints[None], None if confidence is None else confidence[None])
    return calibrate_joint(model, *batch, options, depth, evidence.wrist_depth_std)


def _tensors(own: Predictions) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    confidence = None if own.keypoint_confidence is None else torch.as_tensor(own.keypoint_confidence)
    return torch.as_tensor(own.pose), torch.as_tensor(own.K), torch.as_tensor(own.keypoints_2d), confidence


def _choose(
    model: JointsModel, own: Predictions, evidence: Evidence, num_images: int, select: str, seed: int
) -> np.ndarray:
    """Rows to use: whole instants if there are several cameras."""
    if evidence.views is not None:
        instants = evidence.views.instant
        names = np.unique(instants)
        per_instant = max(1, round(len(own) / len(names)))
        if select != "random":
            raise CalibrationError(f"--select {select} chooses single images; with several cameras use random")
        chosen = choose_images(len(names), max(1, num_images // per_instant), "random", seed)
        return np.flatnonzero(np.isin(instants, names[chosen]))
    information = prior = None
    if select == "informative":
        pose, K, keypoints, confidence = _tensors(own)
        betas = torch.zeros(len(own), 10) if own.betas is None else torch.as_tensor(own.betas)
        information = image_information(model, pose, betas, K, keypoints, confidence, evidence.joint).cpu().numpy()
        prior = evidence.joint.shape_prior(model).precision.cpu().numpy()
    return choose_images(len(own), num_images, select, seed, own.confidence, information, prior)


def _check(result: JointResult, own: Predictions, subject: int) -> None:
    counts = count_status(result.frame_status)
    if int(result.status[0]) == Status.NO_KEYPOINTS:
        raise CalibrationError(
            f"subject {subject}: no usable frame among {len(own)} ({counts}); nothing to calibrate from"
        )
    if not bool(usable(result.status)[0]):
        name = Status(int(result.status[0])).name.lower()
        raise CalibrationError(f"subject {subject}: the calibration {name}; check K and keypoints of {own.source}")
    if int(result.status[0]) != Status.CONVERGED:
        logger.warning("subject %d: stopped before convergence (%s)", subject, count_status(result.status))
    if set(counts) != {"converged"}:
        logger.warning("subject %d: some frames were left out: %s", subject, counts)


def _check_cue(model: JointsModel, without: JointResult, cue: LengthCue, subject: int, accept: bool) -> None:
    length, std, conflict = cue_conflict(model, without.betas[0], without.covariance[0], cue)
    said = (
        f"subject {subject}: {cue.name} was measured as {1000 * cue.length:.1f} ± {1000 * cue.std:.1f} mm, but the "
        f"images and the prior say {length:.1f} ± {std:.1f} mm: {abs(conflict):.1f} standard deviations apart"
    )
    if abs(conflict) > MAX_CONFLICT and not accept:
        raise CalibrationError(f"{said}. Measure again (wrist joint to fingertip, hand flat), or use --accept_conflict")
    if abs(conflict) > MAX_CONFLICT / 2:
        logger.warning("%s", said)


