"""Gaussian priors on the 16 rotations, with the exact derivative of the rotation logarithm: of the hand model's pose
statistics, of a hand shown flat to the camera, and turns to begin a search from.

The residual of a joint is ``phi - offset`` with ``phi = log(reference^T R)``. If the unknowns y move phi itself, that
is R becomes ``R exp([Jr(phi) y])``, the prior is quadratic in y; Jr is the right Jacobian of SO(3) (Sola et al. 2018,
"A micro Lie theory", eqs. 143, 144). The solvers therefore take the first prior's phi as their chart.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import roma
import torch

from template import HandAssets
from template.components_first import Array, library, product
from utils.camera import turn_to_ray

#: rad, added to every finger angle's spread: the pose components nearly forbid what their captures rarely showed.
POSE_FLOOR = 0.1
#: Of a hand shown flat, rad: how far its fingers bend and its palm leans; how far its fingers spread.
FLAT_STD, SPREAD_STD = 0.05, 0.2
#: Share of hands before cameras that are taken to be shown so (nobody counted).
FLAT_SHARE = 0.1
#: Chi-square of its 47 angles up to which a pose is that of such a hand.
FLAT_LIMIT = 47.0
#: Joints of the four fingers in MANO's order, and those at their knuckles; the thumb comes after them.
_FINGERS, _KNUCKLES = slice(1, 13), (1, 4, 7, 10)
#: Standard order: wrist and knuckles, which hardly move against each other.
PALM = [0, 5, 9, 13, 17]


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
        """(N,) of local rotations (N,16,3,3), whose covariance is in rad^2."""
        return 2 * self.pull(self.logarithms(pose.permute(2, 3, 1, 0)))[0]


def habit_prior(
    assets: HandAssets,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    spread: float = 1.0,
    floor: float | None = None,
) -> PosePrior:
    """Gaussian on the fifteen finger rotations, the hand's orientation being free; one row, for any frame.

    The rows C of MANO's pose components carry standard deviations (docs/facts.md 6), so axis-angles have the
    covariance C^T C about the mean pose.

    Args:
        spread: times that covariance; floor: rad, beside it, of every finger angle; None: `POSE_FLOOR`, spread as well.
    """
    beside = spread * POSE_FLOOR**2 if floor is None else floor**2
    covariance = spread * assets.hands_components.T @ assets.hands_components + beside * np.eye(45)
    precision = np.zeros((48, 48))
    precision[3:, 3:] = np.linalg.inv(covariance)
    offset = np.concatenate([np.zeros(3), assets.hands_mean]).reshape(1, 16, 3)
    return PosePrior(
        reference=torch.eye(3, dtype=dtype, device=device).expand(1, 16, 3, 3),
        precision=torch.as_tensor(precision[None], dtype=dtype, device=device),
        offset=torch.as_tensor(offset, dtype=dtype, device=device),
    )


@functools.cache
def all_round() -> torch.Tensor:
    """The 24 rotations (24,3,3) float64 of a cube: no orientation is further than 63 degrees from one of them."""
    turns = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                turns.append(matrix)
    return torch.as_tensor(np.stack(turns))


def palm_turn(seen: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Rotations (N,3,3) that lay the palm of a hand's joints (21,3) on that of points (N,21,3), both m."""
    seen, palm = seen[:, PALM], rest[None, PALM]
    seen, palm = seen - seen.mean(dim=1, keepdim=True), palm - palm.mean(dim=1, keepdim=True)
    return roma.special_procrustes(seen.mT @ palm.expand(len(seen), -1, -1))


@dataclass(frozen=True)
class FlatHand:
    """A hand shown flat: palm and fingers straight and parallel to the picture, from either side.

    Attributes:
        normal: (3,) of the palm in the rest pose, unit length.
        about: Gaussian on the rotations of such a hand about the rest pose, one row; turns in its own plane are free,
            and the thumb is as `habit_prior` has it.
    """

    normal: torch.Tensor
    about: PosePrior

    @classmethod
    def of(cls, assets: HandAssets, device: torch.device | str = "cpu", spread: float = 1.0) -> FlatHand:
        """``spread``: of the thumb, see `habit_prior`."""
        usual = habit_prior(assets, device=device, spread=spread)
        palm = (assets.J_regressor @ assets.v_template)[_FINGERS]
        normal = np.linalg.svd(palm - palm.mean(axis=0))[2][2]
        along = np.outer(normal, normal)
        covariance = np.zeros((48, 48))
        covariance[39:, 39:] = np.linalg.inv(usual.precision[0, 3:, 3:].cpu().numpy())[36:, 36:]
        blocks = covariance.reshape(16, 3, 16, 3)
        for joint in range(13):
            blocks[joint, :, joint] = FLAT_STD**2 * np.eye(3)
            if joint in _KNUCKLES:
                blocks[joint, :, joint] += (SPREAD_STD**2 - FLAT_STD**2) * along
        precision = np.linalg.inv(covariance)
        precision[:3, :3] -= along / FLAT_STD**2
        offset = usual.offset.clone()
        offset[:, :13] = 0.0
        prior = replace(usual, precision=torch.as_tensor(precision[None]).to(usual.precision), offset=offset)
        return cls(torch.as_tensor(normal).to(usual.precision), prior)

    def prior(self, pose: torch.Tensor, K: torch.Tensor | None = None) -> PosePrior:
        """One row for each of poses (N,16,3,3): of a flat hand that lies in the picture as nearly so as may be.

        Args:
            K: (N,3,3), of views that are turned against the frame of the poses; None: they look along z.
        """
        root = pose[:, 0]
        ahead = root.new_tensor([[0.0, 0.0, 1.0]]) if K is None else K[:, 2].to(root)
        view = turn_to_ray(ahead)
        seen = (view.mT @ (root @ self.normal.to(root))[..., None])[..., 0]
        reference = self.about.reference.to(root).repeat(len(root), 1, 1, 1)
        reference[:, 0] = view @ turn_to_ray(seen * seen[:, 2:].sign()).mT @ view.mT @ root
        return replace(self.about.to(root.dtype), reference=reference)

    def start(self, pose: torch.Tensor, K: torch.Tensor | None = None) -> torch.Tensor:
        """Poses (N,16,3,3) at the middle of `prior`."""
        prior = self.prior(pose, K)
        return prior.reference @ roma.rotvec_to_rotmat(prior.offset)

    def are_shown(self, pose: torch.Tensor, K: torch.Tensor | None = None) -> torch.Tensor:
        """Whether poses (N,16,3,3) are of hands shown flat: (N,) bool."""
        return self.prior(pose, K).chi_square(pose) < FLAT_LIMIT

    def instead(
        self, usual: Sequence[PosePrior], pose: torch.Tensor, K: torch.Tensor, shown: torch.Tensor | None = None
    ) -> tuple[Sequence[PosePrior], torch.Tensor]:
        """Priors of poses (N,16,3,3), `prior` in place of the ``usual`` ones where hands are ``shown`` (N,) flat, and
        where that is; None: where these poses are (`are_shown`)."""
        flat = self.prior(pose, K)
        shown = flat.chi_square(pose) < FLAT_LIMIT if shown is None else shown
        if not bool(shown.any()):
            return usual, shown

        def mixed(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return torch.where(shown.view(-1, *[1] * (one.ndim - 1)), one, other)

        return [PosePrior(*map(mixed, vars(flat).values(), vars(prior).values())) for prior in usual], shown

    def turned(self) -> PosePrior:
        """Of hands as straight that lie anyhow, one row."""
        precision = self.about.precision.clone()
        precision[:, :3] = precision[:, :, :3] = 0.0
        return replace(self.about, precision=precision)

    def straightness(self, usual: PosePrior) -> float:
        """Log of the density of its fingers over that of usual ones, each at its middle."""
        about, other = (prior.precision[0, 3:, 3:].logdet() for prior in (self.about, usual))
        return float(about - other) / 2

    def log_odds(self, usual: PosePrior) -> float:
        """Of the densities of a hand shown flat and one held as usual, each at its middle, orientation included.

        Of the latter all orientations are as likely, 8 pi^2 of them; of the former all turns in the plane of either
        side, 4 pi.
        """
        return self.straightness(usual) - 2 * math.log(FLAT_STD) + math.log(FLAT_SHARE / (1 - FLAT_SHARE))


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
