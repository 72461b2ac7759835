"""Joints and fingertips of the posed hand with their exact derivatives: the hand as solvers see it.

Of the 778 vertices only the five tips stay, and the joint regressor is applied to template and shape directions once
(J = J_regressor @ v is linear in betas). Equations are those of SMPL (Loper et al. 2015, eqs. 2-10) and MANO (Romero
et al. 2017). No automatic differentiation: turning joint k by a small w about the camera's axes moves a point x that it
carries by ``w x (x - q_k)``, q_k being the joint's position; only the tips' pose blend needs more.

Inside, arrays have their components first and the N hands last (`components_first`); joints are in MANO's order, and
the 21 points are the 16 joints, then the tips from thumb to little finger.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from template.assets import HandAssets
from template.components_first import cross, product, product_transposed
from template.fast_skinning import chain
from template.few_joints import LANDMARK_FRAMES, OTHER_FRAMES, SUBTREE, FewJoints
from utils.joints import KNUCKLE_FLANKS, MANO_PARENTS, MANO_TO_STANDARD, STANDARD_TO_MANO

_PARENTS = [0, *MANO_PARENTS[1:]]


class JointsModel:
    """Constants of the joints-only hand on one device.

    Attributes:
        rest: (21,3) metres, zero-pose points at zero betas; directions: (10,21,3) metres per unit of betas.
        flanks: (2,3) and flank_directions: (10,2,3), the same of `KNUCKLE_FLANKS`.
        tip_weights: (5,16) skinning weights; tip_pose: (15,15,9) m, (joint, coordinate and tip, entry of R).
        carrier_tip, carrier_joint: (C,) tips and the joints that carry them with some weight; gather: (5,C) sums
            carriers to tips with their weights.
        lever_tip, lever_joint: (L,) tips and the finger joints that move them; lever_sum: (L,C) weights of the
            carriers beyond such a joint, lever_weight: (L,) their sums; lever_own, lever_other: (L,) one for joints
            that turn its own bone, and the one before.
        offsets, bends: (3,21,1) m, whose sum leads from the joints and tips to the points that somebody sees, in the
            rest frames of the bone that ends there (of joint `LANDMARK_FRAMES`) and of the other (`OTHER_FRAMES`);
            None: they are the joints and tips, or nothing turns with the other.
    """

    def __init__(
        self,
        assets: HandAssets,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        offsets: np.ndarray | None = None,
        bends: np.ndarray | None = None,
    ) -> None:
        """``offsets``, and ``bends``, the part of them that turns with the other bone: (21,3) m, standard order.

        Others: see `template.HandModel`.
        """
        ids = list(assets.tips)
        joint_directions = np.einsum("jv,vcs->sjc", assets.J_regressor, assets.shapedirs)
        rest = np.concatenate([assets.J_regressor @ assets.v_template, assets.v_template[ids]])
        directions = np.concatenate([joint_directions, assets.shapedirs[ids].transpose(2, 0, 1)], axis=1)
        weights = assets.weights[ids]
        self.dtype, self.device = dtype, torch.device(device)

        def constant(array: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=dtype, device=device)

        self.rest, self.directions = constant(rest), constant(directions)
        flanks = list(KNUCKLE_FLANKS)
        self.flanks = constant(assets.v_template[flanks])
        self.flank_directions = constant(assets.shapedirs[flanks].transpose(2, 0, 1))
        self.to_standard = torch.tensor(MANO_TO_STANDARD, device=device)
        self.from_standard = torch.argsort(self.to_standard)
        if offsets is not None and bends is not None:
            offsets = offsets - bends
        self.offsets, self.bends = (
            None if part is None else constant(part[list(STANDARD_TO_MANO)].T[..., None]) for part in (offsets, bends)
        )
        blend = assets.posedirs[ids].reshape(5, 3, 15, 9)  # (tip, coordinate, joint, entry)
        self.tip_weights = constant(weights)
        self.tip_pose = constant(blend.transpose(2, 1, 0, 3).reshape(15, 15, 9))
        # Applied to whole local transforms (3,4,16): zero for the bones' column and for the wrist.
        columns = np.zeros((3, 5, 3, 4, 16))
        columns[:, :, :, :3, 1:] = blend.transpose(1, 0, 3, 2).reshape(3, 5, 3, 3, 15)
        self._blend = constant(columns.reshape(15, 192))
        self._blend_at_identity = constant(np.einsum("ctaak->ct", columns[:, :, :, :3]))
        tip, joint = np.nonzero(weights)
        gather = np.zeros((5, len(tip)))
        gather[tip, np.arange(len(tip))] = weights[tip, joint]
        below = weights @ SUBTREE
        own = SUBTREE[LANDMARK_FRAMES[16:]]  # (tip, joint): joints of the tip's own finger, and the wrist
        other = SUBTREE[OTHER_FRAMES[16:]]
        lever_tip, lever_joint = np.nonzero((below + own)[:, 1:])
        lever_joint = lever_joint + 1
        lever_sum = gather[lever_tip] * SUBTREE[joint][:, lever_joint].T
        self.carrier_tip, self.carrier_joint, self.lever_tip, self.lever_joint = (
            torch.tensor(index, device=self.device) for index in (tip, joint, lever_tip, lever_joint)
        )
        self.gather, self.lever_sum = constant(gather), constant(lever_sum)
        self.lever_weight = constant(below[lever_tip, lever_joint])
        self.lever_own, self.lever_other = (constant(part[lever_tip, lever_joint]) for part in (own, other))

    @functools.cached_property
    def _bone_directions(self) -> torch.Tensor:
        """(3,16,10) directions of the bones from parent to joint; the wrist's are zero."""
        return (self.directions[:, :16] - self.directions[:, _PARENTS]).permute(2, 1, 0).contiguous()

    @functools.cached_property
    def few(self) -> FewJoints:
        """The same for a few hands on a CPU."""
        return FewJoints(self)

    def moved(self, offsets: torch.Tensor) -> JointsModel:
        """The same whose points lie ``offsets`` (N,21,3) m further, of N hands, MANO's order, in the frames of
        ``offsets``; for `posed_points` of so many hands alone."""
        other, further = copy.copy(self), offsets.permute(2, 1, 0)
        other.__dict__.pop("few", None)
        other.offsets = further if self.offsets is None else self.offsets + further
        return other

    def rest_points(self, betas: torch.Tensor) -> torch.Tensor:
        """Zero-pose joints and tips (..., 21, 3), metres, from betas (..., 10)."""
        flat = self.directions.flatten(1)
        return self.rest + (betas @ flat).unflatten(-1, (21, 3))


class Landmarks(Protocol):
    """Where a source's points lie, as `JointsModel` takes it."""

    @property
    def offsets(self) -> np.ndarray: ...

    @property
    def bends(self) -> np.ndarray | None: ...


def joints_model(
    assets: HandAssets,
    landmarks: Landmarks | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> JointsModel:
    """The hand whose points are a source's; of None, its joints and tips. Its lengths are the joints', m."""
    shifts = {} if landmarks is None else {"offsets": landmarks.offsets, "bends": landmarks.bends}
    return JointsModel(assets, dtype=dtype, device=device, **shifts)


@dataclass
class PosedPoints:
    """N posed hands relative to their wrists, and what the derivatives need.

    Attributes:
        local: (3,4,16,N) rotation relative to the parent, and bone, m; world: (3,4,16,N) rotation and position.
        planar: (3,21,N) m, the points.
        carried: (3,C,N) m, the tips as each of their carriers alone would place them.
        shift: (3,21,N) m, what the model's offsets moved the points by, or None; turned: (3,21,N) m, the part of it
            that turns with the other bone, or None.
    """

    local: torch.Tensor
    world: torch.Tensor
    planar: torch.Tensor
    carried: torch.Tensor
    shift: torch.Tensor | None = None
    turned: torch.Tensor | None = None

    @property
    def points(self) -> torch.Tensor:
        """(N,21,3) metres."""
        return self.planar.permute(2, 1, 0).contiguous()

    @property
    def rotations(self) -> torch.Tensor:
        """(3,3,16,N) global rotations."""
        return self.world[:, :3]


def posed_points(model: JointsModel, pose: torch.Tensor, rest: torch.Tensor) -> PosedPoints:
    """Pose the joints and tips.

    Args:
        pose: (N,16,3,3) local rotations; the root's is the hand's orientation in the camera frame.
        rest: (N,21,3) metres, zero-pose joints and tips (`JointsModel.rest_points`).
    """
    n = len(pose)
    rest = rest.permute(2, 1, 0)
    local = pose.new_empty(3, 4, 16, n)
    local[:, :3] = pose.permute(2, 3, 1, 0)
    local[:, 3] = rest[:, :16] - rest[:, _PARENTS]
    world = chain(local)
    at_rest = rest[:, 16:] - model._blend_at_identity[..., None]
    corrected = torch.addmm(at_rest.reshape(15, n), model._blend, local.view(192, n)).view(3, 5, n)
    arms = corrected[:, model.carrier_tip] - rest[:, model.carrier_joint]
    placed = world[:, :, model.carrier_joint]
    carried = torch.addcmul(placed[:, 3], placed[:, 0], arms[0])
    carried.addcmul_(placed[:, 1], arms[1]).addcmul_(placed[:, 2], arms[2])
    planar, shift, turned = torch.cat([world[:, 3], model.gather @ carried], dim=1), None, None
    if model.offsets is not None:
        shift = product(world[:, :3, LANDMARK_FRAMES], model.offsets[:, None])[:, 0]
        if model.bends is not None:
            turned = product(world[:, :3, OTHER_FRAMES], model.bends[:, None])[:, 0]
            shift += turned
        planar += shift
    return PosedPoints(local, world, planar, carried, shift, turned)


def row_jacobian(
    model: JointsModel,
    posed: PosedPoints,
    rows: torch.Tensor,
    chart: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Derivative (R,21,16,3,N) of ``rows . points`` in the pose: R numbers a point, in three unknowns y a joint.

    Args:
        rows: (3,R,21,N) any R directions of each point, e.g. the derivative of its pixel: the chain rule's left side.
        chart: (3,3,16,N) matrices L that say what the unknowns are: a joint's rotation is ``R exp([L y])``.
            None: the identity, y being the local increment, rad.
        out: zeros of the result's shape to write to.
    """
    count, n = rows.shape[1], rows.shape[-1]
    points, out = posed.planar, rows.new_zeros(count, 21, 16, 3, n) if out is None else out
    turns = posed.rotations if chart is None else product(posed.rotations, chart)  # (3,3,16,N): y to camera axes
    out[:, :, 0] = _torques(points, rows, turns[:, :, :1]).permute(1, 2, 0, 3)  # the wrist carries all
    # Joints, by the joints before them on their finger.
    centres = posed.world[:, 3]
    joints, joint_rows = points[:, 1:16].view(3, 5, 3, n), rows[:, :, 1:16].view(3, count, 5, 3, n)
    turning = centres[:, 1:].view(3, 5, 3, n)
    finger_turns = turns[:, :, 1:].view(3, 3, 5, 3, n)
    blocks = out[:, 1:16, 1:].unflatten(1, (5, 3)).unflatten(3, (5, 3)).diagonal(dim1=1, dim2=3)
    blocks = blocks.permute(3, 0, 5, 1, 2, 4)  # (axis, row, finger, level of the point, level that turns, N)
    for level in (0, 1):
        arms = joints[:, :, level + 1 :] - turning[:, :, level, None]
        blocks[..., level + 1 :, level, :] = _torques(
            arms, joint_rows[..., level + 1 :, :], finger_turns[:, :, :, level, None]
        )
    if posed.turned is not None:  # by the joint itself
        arms = posed.turned[:, 1:16].view(3, 5, 3, n)
        blocks.diagonal(dim1=3, dim2=4).copy_(_torques(arms, joint_rows, finger_turns).movedim(-2, -1))
    # Tips, by the joints that move them: rigidly, and through the pose blend.
    tip, joint, tip_rows = model.lever_tip, model.lever_joint, rows[:, :, 16:]
    arms = model.lever_sum @ posed.carried - model.lever_weight[:, None] * centres[:, joint]
    if posed.shift is not None:
        arms += model.lever_own[:, None] * posed.shift[:, 16 + tip]
    if posed.turned is not None:
        arms += (model.lever_other - model.lever_own)[:, None] * posed.turned[:, 16 + tip]
    out[:, 16 + tip, joint] = _torques(arms, tip_rows[:, :, tip], turns[:, :, joint]).permute(1, 2, 0, 3)
    blended = model.gather @ posed.rotations[:, :, model.carrier_joint]  # (3,3,5,N)
    pulls = product_transposed(blended[:, :, None], tip_rows[:, None])  # (3,R,5,N): rows in the rest frame
    tips, moved = out[:, 16:, 1:], _blend_jacobian(model, posed, chart)
    for axis in range(3):
        tips.addcmul_(pulls[axis, :, :, None, None], moved[axis])
    return out


def _torques(arms: torch.Tensor, rows: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """(3,R,...): derivative of ``row . (turns y) x arm`` in y, from arms (3,...), rows (3,R,...), turns (3,3,...)."""
    return product_transposed(turns[:, :, None], cross(arms[:, None], rows)[:, None])


def _blend_jacobian(model: JointsModel, posed: PosedPoints, chart: torch.Tensor | None) -> torch.Tensor:
    """(3,5,15,3,N) m: derivative of the tips' pose blend (linear in the rotations) in each joint's unknowns."""
    n = posed.planar.shape[-1]
    if chart is None:
        chart = torch.eye(3, dtype=model.dtype, device=model.device)[:, :, None, None].expand(3, 3, 16, n)
    # d(R exp[L y]) has the rows R_i x L_a, a being the axis of y.
    change = cross(posed.local[:, :3, 1:].transpose(0, 1)[:, :, None], chart[:, None, :, 1:])  # (column,row,axis,15,N)
    entries = change.permute(3, 1, 0, 2, 4).reshape(15, 9, 3 * n)
    return torch.bmm(model.tip_pose, entries).view(15, 3, 5, 3, n).permute(1, 2, 0, 3, 4)


def shape_jacobian(model: JointsModel, posed: PosedPoints) -> torch.Tensor:
    """Derivative (3,21,10,N) of the points with respect to betas, metres per unit."""
    rotations, n = posed.rotations, posed.planar.shape[-1]
    bones = model._bone_directions[..., None]  # (3,16,10,1)
    moved = product(rotations[:, :, _PARENTS, None], bones[:, None])[:, 0]
    fingers = moved[:, 1:].view(3, 5, 3, 10, n)
    fingers[:, :, 1] += fingers[:, :, 0]
    fingers[:, :, 2] += fingers[:, :, 1]
    directions = model.directions.permute(2, 1, 0)
    arms = directions[:, 16 + model.carrier_tip] - directions[:, model.carrier_joint]
    turned = product(rotations[:, :, model.carrier_joint, None], arms[:, None, ..., None])[:, 0]
    carried = moved[:, model.carrier_joint] + turned
    tips = (model.gather @ carried.flatten(2)).view(3, 5, 10, n)
    return torch.cat([moved, tips], dim=1)
