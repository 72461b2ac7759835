"""Where a rigid mesh is, as a least-squares problem of three unknowns: keypoints and the silhouette's reach."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from src.personalization.registration.silhouette import mesh_extents
from src.personalization.solver.levenberg_marquardt import State
from src.personalization.solver.normal_equations import solve_damped
from src.personalization.solver.robust import robust_loss
from src.personalization.solver.status import NEAR
from src.personalization.terms.keypoint_terms import keypoint_rows

LOSS = "geman_mcclure"
#: Standard deviations beyond which a residual is distrusted and a keypoint is an outlier.
OUTLIER = 3.0


@dataclass(frozen=True)
class MeshObservations:
    """B rigid meshes and what is seen of each; float64.

    Attributes:
        joints: (B,21,3) and vertices: (B,V,3) m, relative to the root; K: (B,3,3) px.
        keypoints: (B,21,2) px; keypoint_weights: (B,21) = 1 / variance, 1/px^2, zero where unseen.
        extents: (B,D) px reach of the silhouette along ``axes`` (D,2); extent_weights: (B,D), 1/px^2,
            zero where unknown.
        hidden_scale: standard deviations beyond which ends are distrusted where the mesh reaches beyond the silhouette:
            an object in front hides part of a hand, but nothing adds to it.
    """

    joints: torch.Tensor
    vertices: torch.Tensor
    K: torch.Tensor
    keypoints: torch.Tensor
    keypoint_weights: torch.Tensor
    extents: torch.Tensor
    extent_weights: torch.Tensor
    axes: torch.Tensor
    hidden_scale: float = 1.5

    def rows(self, index: torch.Tensor | slice) -> MeshObservations:
        names = [item.name for item in fields(self) if item.name not in ("axes", "hidden_scale")]
        return replace(self, **{name: getattr(self, name)[index] for name in names})


class RegistrationProblem:
    """`levenberg_marquardt.Problem` with the state key position (B,3) m: the root in the camera frame."""

    def __init__(self, seen: MeshObservations) -> None:
        self.seen = seen
        self._projections = torch.cat([seen.K, torch.zeros_like(seen.K[..., :1])], dim=-1).permute(1, 2, 0)[:, :, None]
        self._with_extents = bool((seen.extent_weights > 0).any())

    def linearise(self, state: State) -> State:
        """See `levenberg_marquardt.Problem`: cost (B,), gradient (B,3) by the position in m, hessian (B,3,3)."""
        seen = self.seen
        joints = (seen.joints + state["position"][:, None]).permute(2, 1, 0)
        cost, residuals, rows = keypoint_rows(
            joints,
            self._projections,
            seen.keypoints.permute(2, 1, 0)[:, None],
            seen.keypoint_weights.mT[None],
            LOSS,
            OUTLIER,
        )
        columns = rows.flatten(1, 2).permute(2, 1, 0)  # (B,42,3)
        gradient, hessian = (residuals.flatten(0, 1).mT[:, None] @ columns)[:, 0], columns.mT @ columns
        if self._with_extents:
            more = extent_terms(seen, state["position"])
            cost, gradient, hessian = cost + more[0], gradient + more[1], hessian + more[2]
        return {"cost": cost, "gradient": gradient, "hessian": hessian}

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `levenberg_marquardt.Problem`; positions in m."""
        position, promised = solve_damped(terms["hessian"], terms["gradient"], damping)
        return {"position": position}, promised

    def retract(self, state: State, step: State) -> State:
        """See `levenberg_marquardt.Problem`; positions in m."""
        return {"position": state["position"] + step["position"]}

    def rows(self, index: torch.Tensor) -> RegistrationProblem:
        return RegistrationProblem(self.seen.rows(index))


def extent_gaps(seen: MeshObservations, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How much farther than the silhouette the mesh reaches, px (B,D), zero where unknown.

    Also the camera-frame points (B,D,3) that reach farthest, and whether (B,) all of a mesh is in front.
    """
    placed = seen.vertices + position[:, None]
    image = placed @ seen.K.mT
    pixels = image[..., :2] / image[..., 2:].clamp_min(NEAR)
    reach, index = mesh_extents(pixels, seen.axes)
    ends = placed.gather(1, index[..., None].expand(-1, -1, 3))
    known = seen.extent_weights > 0
    gap = torch.where(known, reach - torch.where(known, seen.extents, torch.zeros_like(reach)), torch.zeros_like(reach))
    return gap, ends, (image[..., 2] >= NEAR).all(dim=1)


def extent_terms(seen: MeshObservations, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cost (B,), gradient (B,3) and Gauss-Newton Hessian (B,3,3) of the gaps (px) at positions (B,3) m, all axes.

    The reach is a maximum over vertices; its derivative is that of the vertex that attains it (Danskin).
    """
    gap, ends, in_front = extent_gaps(seen, position)
    image = ends @ seen.K.mT
    inverse = 1 / image[..., 2:].clamp_min(NEAR)
    pixels = image[..., :2] * inverse
    derivative = (seen.K[:, None, :2] - pixels[..., None] * seen.K[:, None, 2:]) * inverse[..., None]  # (B,D,2,3)
    slope = (seen.axes[None, :, :, None] * derivative).sum(dim=2)  # (B,D,3)
    squared = seen.extent_weights * gap.square()
    symmetric, hidden = (robust_loss(squared, LOSS, scale) for scale in (OUTLIER, seen.hidden_scale))
    rho, trust = (torch.where(gap > 0, hidden[i], symmetric[i]) for i in (0, 1))
    weight = trust * seen.extent_weights
    counts = (seen.extent_weights > 0).any(dim=1)
    cost = torch.where(in_front | ~counts, rho.sum(dim=1) / 2, torch.inf)
    gradient = ((weight * gap)[..., None] * slope).sum(dim=1)
    return cost, gradient, (weight[..., None] * slope).mT @ slope
