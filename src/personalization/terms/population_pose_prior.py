"""How hands are usually held: the hand model's pose statistics as a prior, a hand shown flat to the camera as another,
and turns to begin a search from."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import roma
import torch

from src.personalization.terms.pose_prior import PosePrior
from template import HandAssets
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

    def prior(self, pose: torch.Tensor) -> PosePrior:
        """One row for each of poses (N,16,3,3): of a flat hand that lies in the picture as nearly so as may be."""
        root = pose[:, 0]
        seen = root @ self.normal.to(root)
        reference = self.about.reference.to(root).repeat(len(root), 1, 1, 1)
        reference[:, 0] = turn_to_ray(seen * seen[:, 2:].sign()).mT @ root
        return replace(self.about.to(root.dtype), reference=reference)

    def start(self, pose: torch.Tensor) -> torch.Tensor:
        """Poses (N,16,3,3) at the middle of `prior`."""
        prior = self.prior(pose)
        return prior.reference @ roma.rotvec_to_rotmat(prior.offset)

    def are_shown(self, pose: torch.Tensor) -> torch.Tensor:
        """Whether poses (N,16,3,3) are of hands shown flat: (N,) bool."""
        return self.prior(pose).chi_square(pose) < FLAT_LIMIT

    def instead(
        self, usual: Sequence[PosePrior], pose: torch.Tensor, shown: torch.Tensor | None = None
    ) -> tuple[Sequence[PosePrior], torch.Tensor]:
        """Priors of poses (N,16,3,3), `prior` in place of the ``usual`` ones where hands are ``shown`` (N,) flat, and
        where that is; None: where these poses are (`are_shown`)."""
        flat = self.prior(pose)
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
