"""All frames of a video as one least-squares problem: poses and wrists of each frame, and one shape if it is free."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from src.personalization.solver.block_banded import band, solve_band
from src.personalization.solver.levenberg_marquardt import State
from src.personalization.solver.normal_equations import marquardt
from src.personalization.terms.frame_problem import ShapePrior, retract_frames, step_of
from src.personalization.terms.frame_terms import FRAME_SIZE, SHAPE, Observations, evaluate_frames
from src.personalization.terms.smoothness import Smoothness, smoothness_rows
from template.components_first import Array, library
from template.kinematics import JointsModel


@dataclass(frozen=True)
class Chain:
    """How T frames follow each other.

    Attributes:
        steps: (T-1,) s from each to the next, above 0, also between chains, where they mean nothing: times of day would
            lose them in single precision. linked: (T-1,) a frame and the next are of one hand's motion.
    """

    steps: Array
    linked: Array


@dataclass
class SequenceProblem:
    """`levenberg_marquardt.Problem` of a single problem: state pose (1,T,16,3,3), wrist (1,T,3), betas (1,T|1,10).

    Attributes:
        model: the joints-only hand; seen: what each of the T frames shows; chain: how they follow each other.
        shape_prior: free one shape for all frames, with this prior; None: betas stay as given.
    """

    model: JointsModel
    seen: Observations
    chain: Chain
    smoothness: Smoothness
    shape_prior: ShapePrior | None = None

    def linearise(self, state: State) -> State:
        """Cost, gradient (by rad and m), the Hessian's blocks, its betas' border, the chart of `evaluate_frames`."""
        pose, wrist, betas = state["pose"][0], state["wrist"][0], state["betas"][0]
        rest = self.model.rest_points(betas).expand(len(pose), -1, -1)
        free = self.shape_prior is not None
        frames = evaluate_frames(self.model, self.seen, pose, wrist, rest, free)
        gradient = frames.gradient[:, :FRAME_SIZE]
        diagonal = frames.hessian[:, :FRAME_SIZE, :FRAME_SIZE].clone()
        chained, next_one, next_two = smoothness_model(pose, wrist, self.chain, frames.chart, self.smoothness)
        in_joints = diagonal.view(len(pose), 17, 3, 17, 3).diagonal(dim1=1, dim2=3)  # (T,3,3,17), the wrist as one
        in_joints += chained.blocks.permute(0, 2, 3, 1)
        cost = frames.cost.sum() + chained.cost
        terms = {
            "gradient": (gradient + chained.gradient)[None],
            "diagonal": diagonal[None],
            "next_one": next_one[None],
            "next_two": next_two[None],
            "chart": frames.chart[None],
        }
        if self.shape_prior is not None:
            off = betas[0] - self.shape_prior.mean
            pull = self.shape_prior.precision @ off
            cost = cost + off @ pull / 2
            terms |= {
                "border": frames.hessian[None, :, :FRAME_SIZE, SHAPE],
                "corner": (frames.hessian[:, SHAPE, SHAPE].sum(0) + self.shape_prior.precision)[None],
                "shape_gradient": (frames.gradient[:, SHAPE].sum(0) + pull)[None],
            }
        return {"cost": cost[None], **terms}

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `levenberg_marquardt.Problem`, in rad and m; the betas are solved for by their Schur complement."""
        blocks, gradient = (terms[name][0] for name in ("diagonal", "next_one", "next_two")), terms["gradient"][0]
        added = marquardt(terms["diagonal"][0].diagonal(dim1=1, dim2=2).flatten(), damping[0]).view_as(gradient)
        damped = band(*blocks)
        damped[..., 0] += added.to(damped)
        right = -gradient[..., None]
        if "border" in terms:
            right = torch.cat([right, terms["border"][0]], dim=-1)
        solved = solve_band(damped, right)
        if solved is None:
            still = {"turn": terms["chart"].new_zeros(1, len(gradient), 16, 3), "wrist": gradient.new_zeros(1, 1, 3)}
            return still, torch.full_like(damping, torch.nan)
        vector = solved[..., 0]
        promised = ((added * vector - gradient) * vector).sum()
        step: State = {}
        if "border" in terms:
            border, corner = terms["border"][0].flatten(0, 1), terms["corner"][0]
            more = marquardt(corner.diagonal(), damping[0])
            system = corner + torch.diag(more) - border.mT @ solved[..., 1:].flatten(0, 1)
            pull = terms["shape_gradient"][0]
            betas = torch.linalg.solve_ex(system, -pull - border.mT @ vector.flatten())[0]
            vector = vector - solved[..., 1:] @ betas
            promised = ((added * vector - gradient) * vector).sum() + ((more * betas - pull) * betas).sum()
            step = {"betas": betas[None, None]}
        return step_of(vector[None], terms["chart"]) | step, promised[None] / 2

    retract = staticmethod(retract_frames)


@dataclass
class ChainTerms:
    """Smoothness of T frames: half chi-square, gradient (T,51), and 3 x 3 blocks (T,17,3,3) of the diagonal."""

    cost: Array
    gradient: Array
    blocks: Array


def smoothness_model(
    pose: Array, wrist: Array, chain: Chain, chart: Array, smoothness: Smoothness
) -> tuple[ChainTerms, Array, Array]:
    """Gauss-Newton model of the motion (rad, m); arguments as in `smoothness_rows`.

    Returns:
        the terms, and the blocks (T-1,17,3,3), (T-2,17,3,3) that couple a frame (columns) to the next (rows) and to
        the one after it.
    """
    xp, frames = library(pose), len(pose)
    make = functools.partial(xp.zeros, dtype=pose.dtype, device=pose.device)
    blocks, gradient = make((frames, 17, 3, 3)), make((frames, 17, 3))
    one, two = make((max(frames - 1, 0), 17, 3, 3)), make((max(frames - 2, 0), 17, 3, 3))
    if frames < 3:
        return ChainTerms(gradient.sum(), gradient.reshape(frames, 51), blocks), one, two
    residuals, parts = smoothness_rows(pose, wrist, chain.steps, chart, smoothness)
    together = (chain.linked[1:] & chain.linked[:-1])[:, None, None]
    residuals = xp.where(together, residuals, 0.0)
    first, middle, last = (xp.where(together[..., None], part, 0.0) for part in parts)
    for offset, part in enumerate((first, middle, last)):
        rows = slice(offset, frames - 2 + offset)
        gradient[rows] += (part.mT @ residuals[..., None])[..., 0]
        blocks[rows] += part.mT @ part
    one[:-1] += middle.mT @ first
    one[1:] += last.mT @ middle
    two += last.mT @ first
    return ChainTerms((residuals * residuals).sum() / 2, gradient.reshape(frames, 51), blocks), one, two
