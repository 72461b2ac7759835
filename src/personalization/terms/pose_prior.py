"""Gaussian priors on the 16 rotations, with the exact derivative of the rotation logarithm.

The residual of a joint is ``phi - offset`` with ``phi = log(reference^T R)``. If the unknowns y move phi itself, that
is R becomes ``R exp([Jr(phi) y])``, the prior is quadratic in y; Jr is the right Jacobian of SO(3) (Sola et al. 2018,
"A micro Lie theory", eqs. 143, 144). The solvers therefore take the first prior's phi as their chart.
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch

from template.components_first import Array, library, product


@dataclass
class PosePrior:
    """A Gaussian on the rotations of each frame.

    Attributes:
        reference: (N|1,16,3,3) rotations at the centre.
        precision: (N|1,48,48) 1 / rad^2, over (joint, axis).
        offset: (N|1,16,3) rad, subtracted from the logarithm; None for a prior centred at ``reference``.
    """

    reference: torch.Tensor
    precision: torch.Tensor
    offset: torch.Tensor | None = None

    def rows(self, index: torch.Tensor | slice) -> PosePrior:
        parts = (self.reference, self.precision, self.offset)
        return PosePrior(*(value if value is None or len(value) == 1 else value[index] for value in parts))

    def to(self, dtype: torch.dtype) -> PosePrior:
        return PosePrior(*(value if value is None else value.to(dtype) for value in vars(self).values()))

    def logarithms(self, pose: torch.Tensor) -> torch.Tensor:
        """phi (3,16,N), rad, of local rotations (3,3,16,N)."""
        return rotation_log(product(self.reference.permute(3, 2, 1, 0), pose))

    def pull(self, phi: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Half chi-square (N,), and its gradient (N,48) in phi (3,16,N), rad."""
        residual = phi if self.offset is None else phi - self.offset.permute(2, 1, 0)
        vector = residual.permute(2, 1, 0).reshape(phi.shape[-1], 48)
        shared = len(self.precision) == 1
        weighted = vector @ self.precision[0] if shared else (self.precision @ vector[..., None])[..., 0]
        return (vector * weighted).sum(dim=1) / 2, weighted

    def chi_square(self, pose: torch.Tensor) -> torch.Tensor:
        """(N,) of local rotations (N,16,3,3)."""
        return 2 * self.pull(self.logarithms(pose.permute(2, 3, 1, 0)))[0]


def right_jacobian(phi: Array) -> Array:
    """Jr (3,3,...) at rotation vectors (3,...), rad: I - (1 - cos t) / t^2 [phi] + (t - sin t) / t^3 [phi]^2."""
    xp, squared = library(phi), (phi * phi).sum(0)
    small = squared < 1e-2
    safe = xp.where(small, 1.0, squared)
    angle = xp.sqrt(safe)
    turn = xp.where(small, 1 / 2 - squared / 24 + squared * squared / 720, (1 - xp.cos(angle)) / safe)
    bend = xp.where(small, 1 / 6 - squared / 120 + squared * squared / 5040, (angle - xp.sin(angle)) / (angle * safe))
    return _polynomial(phi, squared, -turn, bend)


def inverse_right_jacobian(phi: Array) -> Array:
    """Jr^-1 (3,3,...) at rotation vectors (3,...), rad, |phi| <= pi.

    I + [phi]/2 + (1 - (t/2) cot(t/2)) / t^2 [phi]^2.
    """
    xp, squared = library(phi), (phi * phi).sum(0)
    small = squared < 1e-3
    safe = xp.where(small, 1.0, squared)
    half = xp.sqrt(safe) / 2
    bend = xp.where(small, 1 / 12 + squared / 720, (1 - half / xp.tan(half)) / safe)
    return _polynomial(phi, squared, 0.5, bend)


def _polynomial(phi: Array, squared: Array, turn: Array | float, bend: Array) -> Array:
    """I + turn [phi] + bend [phi]^2, (3,3,...), with [phi]^2 = phi phi^T - t^2 I."""
    # Row-major entries: the diagonal is every fourth; [phi] has z at 3, x at 7, y at 2, and their negatives across.
    entries = ((bend * phi)[:, None] * phi).reshape(9, *phi.shape[1:])
    xp, side = library(phi), turn * phi
    side = xp.concat((side[2:], side[:2]))  # of the axes z, x, y
    for place, added in ((slice(0, 9, 4), 1 - bend * squared), (slice(3, 8, 4), side[:2]), (2, side[2])):
        xp.add(entries[place], added, out=entries[place])
    for place, taken in ((slice(1, 6, 4), side[:2]), (6, side[2])):
        xp.subtract(entries[place], taken, out=entries[place])
    return entries.reshape(3, 3, *phi.shape[1:])


def rotation_log(matrix: Array) -> Array:
    """Rotation vectors (3,...), rad, of rotation matrices (3,3,...), components first.

    `roma.rotmat_to_rotvec` to rounding, in an eighth of its time, which every solver step would pay: up to about 150
    degrees the antisymmetric part serves; larger rotations are RoMa's.
    """
    xp = library(matrix)
    axis = xp.stack([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    sine = xp.sqrt((axis * axis).sum(0)) / 2
    cosine = (matrix[0, 0] + matrix[1, 1] + matrix[2, 2] - 1) / 2
    small = sine < 1e-4
    ratio = xp.atan2(sine, cosine) / xp.where(small, 1.0, sine)
    phi = axis * (xp.where(small, 1 + sine * sine / 6, ratio) / 2)
    large = cosine < -0.85
    if bool(large.any()):
        turned = torch.as_tensor(matrix[:, :, large]).permute(2, 0, 1)
        phi[:, large] = xp.asarray(roma.rotmat_to_rotvec(turned).T)
    return phi
