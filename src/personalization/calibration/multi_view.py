"""Several calibrated cameras that see one instant: they share the pose and the position in the world."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import roma
import torch

from src.personalization.terms.frame_terms import Observations
from src.personalization.terms.inputs import FrameInputs
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


def join_views(
    model: JointsModel, seen: Observations, inputs: FrameInputs, views: ViewGroups
) -> tuple[Observations, torch.Tensor, torch.Tensor]:
    """Of one person's images, ``seen`` (px) each alone, those of F instants, which may have different numbers of views.

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
    one = seen.rows(first)
    observations = replace(
        one,
        projections=inputs.K[table] @ relative[..., :3, :],
        keypoints=seen.keypoints[:, 0][table],
        weights=seen.weights[:, 0][table] * real[..., None],
        pose_priors=[
            replace(prior, reference=mean) if each.reference is inputs.pose else prior  # the network's, or another
            for prior, each in zip(one.pose_priors, seen.pose_priors, strict=True)
        ],
    )
    return observations, mean, inputs.status[first]
