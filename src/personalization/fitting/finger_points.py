"""Reprojection of the 21 points in one camera, components first: `keypoint_terms` for the quick problem.

One camera is all that problem needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from src.personalization.solver.robust import robust_loss
from src.personalization.terms.components_first import matvec
from src.personalization.terms.keypoint_terms import NEAR


@dataclass
class SeenPoints:
    """Keypoints of N frames, points ordered as in `finger_pose`.

    Attributes:
        linear (3,3,N), shift (3,N): projection to pixels; keypoints: (2,21,N) px.
        weights: (21,N) 1/px^2, zero where unseen; nearest: (21,N) m, depth at which a point makes a state impossible.
        loss, loss_scale: see `robust.robust_loss`.
    """

    linear: torch.Tensor
    shift: torch.Tensor
    keypoints: torch.Tensor
    weights: torch.Tensor
    nearest: torch.Tensor
    loss: str
    loss_scale: float

    def rows(self, index: torch.Tensor) -> SeenPoints:
        """Some of the frames."""
        parts = (self.linear, self.shift, self.keypoints, self.weights, self.nearest)
        return SeenPoints(*(value[..., index] for value in parts), self.loss, self.loss_scale)


def seen_points(
    projections: torch.Tensor, keypoints: torch.Tensor, weights: torch.Tensor, loss: str, loss_scale: float
) -> SeenPoints:
    """From projections (N,3,4), keypoints (N,21,2) px and weights (N,21), in the order of the points."""
    last = projections.permute(1, 2, 0).contiguous()
    weights = weights.T.contiguous()
    nearest = torch.where(weights > 0, NEAR, -torch.inf).to(weights.dtype)
    pixels = keypoints.permute(2, 1, 0).contiguous()
    return SeenPoints(last[:, :3], last[:, 3], pixels, weights, nearest, loss, loss_scale)


def point_terms(
    seen: SeenPoints, points: torch.Tensor, wrist: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Second-order model of the keypoint cost in the points' positions; formulas in `keypoint_terms`.

    Args:
        points: (3,21,N) m relative to the wrist; wrist: (3,N) m.

    Returns:
        cost (N,), half chi-square, infinite where a seen point is too near; force (3,21,N), 1/m, the
        gradient; curvature (3,3,2,21,N), 1/m^2: the whole one, and its Gauss-Newton part.
    """
    linear = seen.linear[:, :, None]
    image = torch.addcmul((matvec(seen.linear, wrist) + seen.shift)[:, None], linear[:, 0], points[0])
    image.addcmul_(linear[:, 1], points[1]).addcmul_(linear[:, 2], points[2])
    impossible = (image[2] < seen.nearest).any(dim=0)
    inverse = image[2].clamp_min(NEAR).reciprocal_()
    pixels = image[:2].mul_(inverse)
    off = pixels - seen.keypoints
    squared = (off[0] * off[0]).addcmul_(off[1], off[1]).mul_(seen.weights)
    robust = seen.loss != "none"
    slope = bend = seen.weights
    if robust:
        squared, slope, bend = robust_loss(squared, seen.loss, seen.loss_scale)
        slope = slope * seen.weights
    cost = squared.sum(dim=0).div_(2).masked_fill_(impossible, torch.inf)

    toward = linear[2]
    derivative = torch.addcmul(linear[:2], pixels[:, None], toward, value=-1).mul_(inverse)  # (2,3,21,N)
    force = (derivative[0] * off[0]).addcmul_(derivative[1], off[1])
    weighed = derivative * slope
    curves = force.new_empty(3, 3, 2, *force.shape[1:])
    whole, curve = curves[:, :, 0], curves[:, :, 1]
    torch.mul(weighed[0, :, None], derivative[0], out=curve).addcmul_(weighed[1, :, None], derivative[1])
    pull = force * seen.weights if robust else force
    force = force * slope
    tilt = force * inverse
    torch.addcmul(curve, tilt[:, None], toward, value=-1, out=whole).addcmul_(toward[:, None], tilt, value=-1)
    if robust:
        whole.addcmul_((2 * bend * pull)[:, None], pull)
    return cost, force, curves
