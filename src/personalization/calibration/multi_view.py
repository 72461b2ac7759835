"""Several calibrated cameras that see one instant: they share the pose and the position in the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from src.personalization.calibration.multi_frame import JointOptions, JointResult, solve_joint
from src.personalization.fitting.fit import FitOptions, PosePriorOptions
from src.personalization.solver.status import CalibrationError, Status
from src.personalization.terms.frame_terms import Observations
from src.personalization.terms.inputs import FrameInputs, check_frames
from template.kinematics import JointsModel
from src.personalization.terms.noise import keypoint_weights
from src.personalization.terms.pose_prior import PosePrior


@dataclass(frozen=True)
class ViewGroups:
    """Which rows belong together.

    Attributes:
        instant: (N,) int, equal for views of one instant.
        camera_to_world: (N,4,4) m, of each row's camera, right-hand convention (mirrored for left hands:
            `mirror_extrinsics`); one world for all views of an instant.
    """

    instant: np.ndarray
    camera_to_world: np.ndarray

    def rows(self, rows: np.ndarray) -> ViewGroups:
        """Some of the rows."""
        return ViewGroups(self.instant[rows], self.camera_to_world[rows])


def mirror_extrinsics(camera_to_world: np.ndarray) -> np.ndarray:
    """Extrinsics (...,4,4) of mirrored cameras in a mirrored world: M E M with M = diag(-1, 1, 1, 1)."""
    signs = np.array([-1.0, 1.0, 1.0, 1.0])
    return camera_to_world * signs[:, None] * signs


def group_views(views: ViewGroups, cameras: int, seed: int = 0) -> np.ndarray:
    """Rows (M,) of instants seen by at least ``cameras`` cameras, that many (seeded) of each.

    Raises:
        CalibrationError: if no instant has so many views.
    """
    if cameras < 2:
        raise CalibrationError(f"--cameras is {cameras}; triangulation needs at least two")
    generator = np.random.default_rng(seed)
    order = np.argsort(views.instant, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(views.instant[order])) + 1)
    kept = [np.sort(generator.permutation(group)[:cameras]) for group in groups if len(group) >= cameras]
    if not kept:
        most = max(len(group) for group in groups)
        raise CalibrationError(
            f"no instant was seen by {cameras} cameras (at most {most}); predict all cameras' images"
        )
    return np.concatenate(kept)


def calibrate_views(
    model: JointsModel,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None,
    views: ViewGroups,
    options: JointOptions,
) -> JointResult:
    """Joint calibration of one person from grouped views; instants may have different numbers of views.

    The frame of an instant is that of its first usable view. The network's poses of all views are turned
    into it and averaged (chordal mean) for the prior; its standard deviations are not reduced, since
    the views' errors are not independent.

    Args:
        pose: (N,16,3,3), K: (N,3,3), keypoints: (N,21,2), confidence: (N,21) or None, of N images;
        betas: (1,10) to start from.
    """
    moved = [value.to(model.device, model.dtype) for value in (pose, betas.expand(len(pose), 10), K, keypoints)]
    found = None if confidence is None else confidence.to(model.device, model.dtype)
    inputs = check_frames(*moved, found, options.noise.min_confidence)
    seen, first_pose, status = observe_views(model, inputs, views, options)
    return solve_joint(model, seen, first_pose, moved[1][:1], status, options)


def observe_views(
    model: JointsModel, inputs: FrameInputs, views: ViewGroups, options: JointOptions
) -> tuple[Observations, torch.Tensor, torch.Tensor]:
    """Observations of the instants, their starting poses (F,16,3,3), and frame status (1,F)."""
    good = inputs.good.cpu().numpy()
    names, place = np.unique(views.instant, return_inverse=True)
    members = [np.flatnonzero(place == index) for index in range(len(names))]
    members = [np.concatenate([rows[good[rows]], rows[~good[rows]]]) for rows in members]  # usable views first
    most = max(len(rows) for rows in members)
    table = torch.as_tensor(np.stack([np.resize(rows, most) for rows in members]), device=model.device)
    real = torch.as_tensor(
        np.stack([np.arange(most) < len(rows) for rows in members]), device=model.device
    )
    world = torch.as_tensor(views.camera_to_world, dtype=model.dtype, device=model.device)[table]
    relative = torch.linalg.solve(world, world[:, :1].expand_as(world))  # first view's frame -> view's frame
    rotation = relative[..., :3, :3]
    order = model.from_standard
    weights = keypoint_weights(options.noise, inputs.keypoints, inputs.confidence)[table]
    turned = inputs.pose[table].clone()
    turned[:, :, 0] = rotation.mT @ turned[:, :, 0]
    share = (real & inputs.good[table]).to(model.dtype)
    share[:, 0] += (share.sum(dim=1) == 0).to(model.dtype)
    mean = _nearest_rotation((share[..., None, None, None] * turned).sum(dim=1))
    shared = FitOptions(options.prior, options.noise, options.depth_mean, options.depth_std)
    known = options.depth_mean is not None
    seen = Observations(
        projections=inputs.K[table] @ relative[..., :3, :],
        keypoints=inputs.keypoints[table][:, :, order],
        weights=(weights * real[..., None])[:, :, order],
        pose_priors=[PosePrior(mean, PosePriorOptions.precision(shared.prior, model.dtype, model.device))],
        depth=mean.new_full((len(names),), options.depth_mean) if known else None,
        depth_weight=mean.new_full((len(names),), options.depth_std**-2) if known else None,
        loss=options.noise.loss,
        loss_scale=options.noise.loss_scale,
    )
    status = torch.where(inputs.good[table[:, 0]], int(Status.CONVERGED), inputs.status[table[:, 0]])
    return seen, mean, status[None]


def _nearest_rotation(matrix: torch.Tensor) -> torch.Tensor:
    """Rotation (...,3,3) nearest to a sum of rotations (orthogonal Procrustes)."""
    left, _, right = torch.linalg.svd(matrix)
    flip = torch.ones_like(matrix[..., 0])
    flip[..., 2] = torch.linalg.det(left @ right)
    return (left * flip[..., None, :]) @ right
