"""Several calibrated cameras that see one instant: they share the pose and the position in the world."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import roma
import torch

from src.personalization.fitting.fit import FitOptions, observe
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.frame_terms import Observations
from src.personalization.terms.inputs import FrameInputs
from src.personalization.terms.noise import keypoint_weights
from template.kinematics import JointsModel


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
    """Extrinsics (...,4,4), m, of mirrored cameras in a mirrored world: M E M with M = diag(-1, 1, 1, 1)."""
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


def observe_views(
    model: JointsModel, inputs: FrameInputs, views: ViewGroups, options: FitOptions
) -> tuple[Observations, torch.Tensor, torch.Tensor]:
    """One person's observations (px) of F instants, which may have different numbers of views.

    The frame of an instant is that of its first usable view. The network's poses of all views are turned
    into it and averaged (chordal mean) for the prior; its standard deviations are not reduced, since
    the views' errors are not independent.

    Returns:
        The observations, the instants' starting poses (F,16,3,3), and their status (F,).
    """
    good = inputs.good.cpu().numpy()
    names, place = np.unique(views.instant, return_inverse=True)
    members = [np.flatnonzero(place == index) for index in range(len(names))]
    members = [np.concatenate([rows[good[rows]], rows[~good[rows]]]) for rows in members]  # usable views first
    most = max(len(rows) for rows in members)
    table = torch.as_tensor(np.stack([np.resize(rows, most) for rows in members]), device=model.device)
    real = torch.as_tensor(np.stack([np.arange(most) < len(rows) for rows in members]), device=model.device)
    world = torch.as_tensor(views.camera_to_world, dtype=model.dtype, device=model.device)[table]
    relative = torch.linalg.solve(world, world[:, :1].expand_as(world))  # first view's frame -> view's frame
    turned = inputs.pose[table].clone()
    turned[:, :, 0] = relative[..., :3, :3].mT @ turned[:, :, 0]
    share = (real & inputs.good[table]).to(model.dtype)
    share[:, 0] += (share.sum(dim=1) == 0).to(model.dtype)
    mean = roma.special_procrustes((share[..., None, None, None] * turned).sum(dim=1))
    first = table[:, 0]
    one = FrameInputs(
        mean,
        *(getattr(inputs, name)[first] for name in ("betas", "K", "keypoints", "confidence")),
        inputs.status[first],
    )
    weights = keypoint_weights(options.noise, inputs.keypoints, inputs.confidence)[table] * real[..., None]
    observations = replace(
        observe(model, one, options),
        projections=inputs.K[table] @ relative[..., :3, :],
        keypoints=inputs.keypoints[table][:, :, model.from_standard],
        weights=weights[:, :, model.from_standard],
    )
    return observations, mean, one.status
