"""The frames that a stream still works on, and what those before them leave behind: small dense algebra of one hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv
from scipy.spatial.transform import Rotation

from src.personalization.fitting.sequence_problem import Chain, smoothness_model
from src.personalization.solver.levenberg_marquardt import State
from src.personalization.solver.normal_equations import factorise, marquardt, solve_damped, solve_factored
from src.personalization.terms.few_frames import few_frames
from src.personalization.terms.frame_terms import FRAME_SIZE, Observations
from src.personalization.terms.inputs import FrameInputs
from src.personalization.terms.pose_prior import rotation_log
from src.personalization.terms.smoothness import Smoothness
from template.kinematics import JointsModel


@dataclass
class Past:
    """What frames that have left the window say of the last two of them (one, at a beginning).

    Attributes:
        pose: (P,16,3,3), wrist: (P,3) m: where it is expanded, P up to 2; seconds: (P,).
        hessian: (51 P, 51 P), gradient: (51 P,) in local increments of these.
    """

    pose: NDArray
    wrist: NDArray
    seconds: NDArray
    hessian: NDArray
    gradient: NDArray

    def __len__(self) -> int:
        return len(self.pose)


@dataclass
class Window:
    """`levenberg_marquardt.Problem`, a single one: the frames of `Past`, then those whose keypoints are at hand.

    The motion is of a few frames, and NumPy's.
    """

    model: JointsModel
    past: Past
    inputs: FrameInputs
    seen: Observations
    rest: torch.Tensor
    seconds: NDArray
    smoothness: Smoothness

    def linearise(self, state: State) -> State:
        """Cost, gradient and dense Hessian (by rad and m)."""
        pose, wrist = state["pose"][0].numpy(), state["wrist"][0].numpy()
        old, count = len(self.past), len(pose)
        frames = few_frames(self.model, self.seen, pose[old:], wrist[old:], self.rest.numpy())
        chart = np.concatenate([np.broadcast_to(np.eye(3), (old, 16, 3, 3)), frames.chart])
        chain = Chain(np.diff(self.seconds), np.ones(count - 1, dtype=bool))
        moved, one, two = smoothness_model(pose, wrist, chain, chart, self.smoothness)
        hessian = np.zeros((count, 17, 3, count, 17, 3))
        blocks = np.einsum("tpaupb->tupab", hessian)  # a view
        for distance, coupling in enumerate((moved.blocks, one, two)):
            for row, block in enumerate(coupling):
                blocks[row + distance, row], blocks[row, row + distance] = block, block.mT
        square = hessian.reshape(count, FRAME_SIZE, count, FRAME_SIZE)
        for row, own in enumerate(frames.hessian, old):
            square[row, :, row] += own
        hessian = square.reshape(count * FRAME_SIZE, count * FRAME_SIZE)
        gradient = moved.gradient
        gradient[old:] += frames.gradient
        gradient = gradient.reshape(-1)
        cost = frames.cost.sum() + moved.cost
        if old:
            inner = old * FRAME_SIZE
            turn = rotation_log((self.past.pose.mT @ pose[:old]).transpose(2, 3, 1, 0)).transpose(2, 1, 0)
            off = np.concatenate([turn.reshape(old, 48), wrist[:old] - self.past.wrist], axis=1).reshape(-1)
            pull = self.past.hessian @ off
            cost = cost + off @ (pull / 2 + self.past.gradient)
            gradient[:inner] += pull + self.past.gradient
            hessian[:inner, :inner] += self.past.hessian
        terms = {"cost": np.asarray(cost), "gradient": gradient, "hessian": hessian, "chart": chart}
        terms["points"] = frames.points  # relative to the wrists
        return {name: torch.from_numpy(value[None]) for name, value in terms.items()}

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `levenberg_marquardt.Problem`, in rad and m."""
        vector, promised = solve_one(terms["hessian"], terms["gradient"], damping)
        step = vector.numpy().reshape(1, -1, 17, 3)
        turn = (terms["chart"].numpy() @ step[:, :, :16, :, None])[..., 0]
        return {"turn": torch.from_numpy(turn), "wrist": torch.from_numpy(step[:, :, 16])}, promised

    def retract(self, state: State, step: State) -> State:
        """See `frame_problem.retract_frames`, in rad and m."""
        pose = state["pose"].numpy() @ exponential(step["turn"].numpy())
        return {"pose": torch.from_numpy(pose), "wrist": state["wrist"] + step["wrist"]}


def with_frame(state: State, terms: State, seconds: NDArray) -> Past:
    """The past with one more frame in it: ``terms`` at ``state`` of a window of one frame, reduced to the last two."""
    pose, wrist = state["pose"][0].numpy(), state["wrist"][0].numpy()
    hessian, gradient = terms["hessian"][0].numpy().copy(), terms["gradient"][0].numpy().copy()
    own = np.eye(FRAME_SIZE).reshape(17, 3, 17, 3)
    own[range(16), :, range(16)] = np.linalg.inv(terms["chart"][0, -1].numpy())
    to_local = own.reshape(FRAME_SIZE, FRAME_SIZE)
    last = slice(-FRAME_SIZE, None)
    hessian[:, last] = hessian[:, last] @ to_local
    hessian[last] = to_local.T @ hessian[last]
    gradient[last] = to_local.T @ gradient[last]
    drop = FRAME_SIZE * max(len(pose) - 2, 0)
    if drop:
        inner, border = hessian[:drop, :drop].copy(), hessian[:drop, drop:]
        inner.reshape(-1)[:: drop + 1] += marquardt(inner.diagonal(), np.zeros(()))
        known = np.concatenate([border, gradient[:drop, None]], axis=1)
        _, solved, failed = dposv(inner.T, known, lower=1)
        if failed:
            solved = solve_factored(factorise(torch.from_numpy(inner)[None]), torch.from_numpy(known)[None])[0].numpy()
        gradient = gradient[drop:] - border.T @ solved[:, -1]
        hessian = hessian[drop:, drop:] - border.T @ solved[:, :-1]
        hessian = (hessian + hessian.T) / 2
    return Past(pose[-2:], wrist[-2:], seconds[-2:], hessian, gradient)


def solve_one(
    hessian: torch.Tensor, gradient: torch.Tensor, damping: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`solve_damped` of one system (1,U,U) in rad and m, by one call of LAPACK; what that refuses it still solves."""
    system, pull = hessian[0].numpy().copy(), gradient[0].numpy()
    added = marquardt(system.diagonal(), damping[0].numpy())
    system.reshape(-1)[:: len(system) + 1] += added
    # Row by row in memory: LAPACK sees the transpose, which is the same, and may overwrite it.
    _, solution, failed = dposv(system.T, pull, lower=1, overwrite_a=1)
    promised = ((added * solution + pull) @ solution) / 2
    if failed or not np.isfinite(promised):
        return solve_damped(hessian, gradient, damping)
    return torch.from_numpy(-solution)[None], gradient.new_full((1,), promised)


def exponential(turn: NDArray) -> NDArray:
    """Rotations (...,3,3) of rotation vectors (...,3), rad."""
    return Rotation.from_rotvec(turn.reshape(-1, 3)).as_matrix().reshape(*turn.shape, 3)
