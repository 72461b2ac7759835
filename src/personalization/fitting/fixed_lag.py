"""The causal twin of `fit_sequence`: each frame as it comes, from what was seen up to ``lag`` frames later."""

from __future__ import annotations

import math
from dataclasses import dataclass

import roma
import torch

from src.personalization.fitting.fit import FitResult, fit_frames, observe, reprojection_rmse
from src.personalization.fitting.sequence import SequenceOptions, silence
from src.personalization.fitting.sequence_problem import Chain, smoothness_model
from src.personalization.fitting.translation import wrist_from_keypoints
from src.personalization.solver.levenberg_marquardt import LMOptions, State, minimise
from src.personalization.solver.normal_equations import factorise, marquardt, solve_damped, solve_factored
from src.personalization.solver.status import Status, in_range, usable
from src.personalization.terms.frame_problem import retract_frames, step_of
from src.personalization.terms.frame_terms import FRAME_SIZE, Observations, evaluate_frames
from src.personalization.terms.inputs import FrameInputs, check_frames
from src.personalization.terms.smoothness import Smoothness
from template.kinematics import JointsModel, posed_points

#: Of a stream nothing is known of what comes next: velocities may change more, and fade sooner, than in hindsight.
DEFAULTS = SequenceOptions(smoothness=Smoothness(3.0, 4.5, 0.4, memory=0.2))
#: Linear systems solved for a frame; the next frame goes on from there.
STEPS = LMOptions(max_steps=2, tolerance=3e-2)


@dataclass
class Past:
    """What frames that have left the window say of the last two of them (one, at a beginning).

    Attributes:
        pose: (P,16,3,3), wrist: (P,3) m: where it is expanded, P up to 2; seconds: (P,).
        hessian: (51 P, 51 P), gradient: (51 P,) in local increments of these.
    """

    pose: torch.Tensor
    wrist: torch.Tensor
    seconds: torch.Tensor
    hessian: torch.Tensor
    gradient: torch.Tensor

    def __len__(self) -> int:
        return len(self.pose)


@dataclass
class Window:
    """`levenberg_marquardt.Problem`, a single one: the frames of `Past`, then those whose keypoints are at hand."""

    model: JointsModel
    past: Past
    seen: Observations
    rest: torch.Tensor
    seconds: torch.Tensor
    smoothness: Smoothness
    retract = staticmethod(retract_frames)

    def linearise(self, state: State) -> State:
        """Cost, gradient and dense Hessian (by rad and m)."""
        pose, wrist = state["pose"][0], state["wrist"][0]
        old, size = len(self.past), len(pose) * FRAME_SIZE
        frames = evaluate_frames(self.model, self.seen, pose[old:], wrist[old:], self.rest, False)
        eye = torch.eye(3, dtype=pose.dtype, device=pose.device).expand(old, 16, 3, 3)
        chart = torch.cat([eye, frames.chart])
        chain = Chain(self.seconds, torch.ones(len(pose) - 1, dtype=torch.bool, device=pose.device))
        moved, one, two = smoothness_model(pose, wrist, chain, chart, self.smoothness)
        hessian = pose.new_zeros(len(pose), FRAME_SIZE, len(pose), FRAME_SIZE)
        for frame, (block, own) in enumerate(zip(moved.blocks, [None] * old + list(frames.hessian), strict=True)):
            hessian[frame, :, frame] = torch.block_diag(*block) if own is None else torch.block_diag(*block) + own
        for distance, couplings in ((1, one), (2, two)):
            for frame, block in enumerate(couplings):
                dense = torch.block_diag(*block)
                hessian[frame + distance, :, frame], hessian[frame, :, frame + distance] = dense, dense.mT
        hessian = hessian.view(size, size)
        gradient = moved.gradient.clone()
        gradient[old:] += frames.gradient
        gradient = gradient.flatten()
        cost = frames.cost.sum() + moved.cost
        if old:
            inner = old * FRAME_SIZE
            turn = roma.rotmat_to_rotvec(self.past.pose.mT @ pose[:old]).flatten(1)
            off = torch.cat([turn, wrist[:old] - self.past.wrist], dim=1).flatten()
            pull = self.past.hessian @ off
            cost = cost + off @ (pull / 2 + self.past.gradient)
            gradient[:inner] += pull + self.past.gradient
            hessian[:inner, :inner] += self.past.hessian
        return {"cost": cost[None], "gradient": gradient[None], "hessian": hessian[None], "chart": chart[None]}

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `levenberg_marquardt.Problem`, in rad and m."""
        vector, promised = solve_damped(terms["hessian"], terms["gradient"], damping)
        return step_of(vector.unflatten(1, (-1, FRAME_SIZE)), terms["chart"]), promised

    def rows(self, index: torch.Tensor) -> Window:
        """There is one problem only."""
        return self


class FixedLagSmoother:
    """One hand in a stream of frames.

    What leaves the window stays as a Gaussian on the last two poses (position and velocity), as in Dong-Si and
    Mourikis 2011, "Motion tracking with fixed-lag smoothing": older frames are eliminated by their Schur complement.

    Args:
        model: the joints-only hand, float64; betas: (10,) of the person (`betas` may be set anew at any time).
        options: as for `fit_sequence`, the shape held; lag: frames that a result waits for, 0 for live use.
    """

    def __init__(
        self, model: JointsModel, betas: torch.Tensor, options: SequenceOptions = DEFAULTS, lag: int = 0
    ) -> None:
        if lag < 0:
            raise ValueError(f"a lag of {lag} frames: it must be 0 or more")
        self.model, self.options, self.lag = model, options, lag
        self.betas = betas.to(model.device, model.dtype)
        self._count = 0
        self.reset()

    def reset(self) -> None:
        """Forget every frame: a new hand."""
        model = self.model
        none = torch.zeros(0, 3, dtype=model.dtype, device=model.device)
        self._past = Past(none.new_zeros(0, 16, 3, 3), none, none[:, 0], none.new_zeros(0, 0), none[:, 0])
        self._pose, self._wrist, self._seconds = self._past.pose, none, none[:, 0]  # of past and window
        self._window: list[tuple[int, FrameInputs, torch.Tensor | None]] = []

    def update(
        self,
        pose: torch.Tensor,
        K: torch.Tensor,
        keypoints: torch.Tensor,
        seconds: float,
        confidence: torch.Tensor | None = None,
        world: torch.Tensor | None = None,
    ) -> list[tuple[int, FitResult]]:
        """Take in one more frame.

        Args:
            pose (16,3,3), K (3,3), keypoints (21,2), confidence (21,), world (21,3): as in `fit_frames`; a frame
                without a hand has confidence zero.
            seconds: when it was taken.

        Returns:
            The frames that are settled now, each with its number (0 for the first ever) and a `FitResult` of one row;
            mostly the one ``lag`` frames ago. Not usable are those that came when nothing said where the hand is.

        Raises:
            ValueError: time does not advance, or is no number; the frame is then not counted.
        """
        if not math.isfinite(seconds):
            raise ValueError(f"a frame at {seconds} s: it has no time")
        settled: list[tuple[int, FitResult]] = []
        if len(self._seconds):
            last = float(self._seconds[-1])
            if not seconds > last:
                raise ValueError(f"time does not advance: a frame at {seconds:g} s after one at {last:g} s")
            if seconds - last > self.options.largest_gap:
                settled = self.flush()
        number, self._count = self._count, self._count + 1
        to = {"device": self.model.device, "dtype": self.model.dtype}
        given = [value.to(**to)[None] for value in (pose, self.betas, K, keypoints)]
        trust = None if confidence is None else confidence.to(**to)[None]
        guess = None if world is None else world.to(**to)[None]
        inputs = check_frames(*given, trust, self.options.frame.noise.min_confidence)
        alone = None
        if len(self._seconds) == 0:
            alone = fit_frames(self.model, *given, trust, self.options.frame, world=guess)
            if not bool(usable(alone.status)):
                return [*settled, (number, alone)]
        self._window.append((number, inputs, guess))
        self._append(alone, seconds)
        problem = self._problem(len(self._window))
        state = self._begin(problem, inputs) if alone is None else self._state()
        result = minimise(problem, state, STEPS)
        self._pose, self._wrist = result.state["pose"][0], result.state["wrist"][0]
        if not bool(in_range(self._wrist).all()):
            self._window.pop()
            self._pose, self._wrist, self._seconds = self._pose[:-1], self._wrist[:-1], self._seconds[:-1]
            settled += self.flush()
            lost = fit_frames(self.model, *given, torch.zeros_like(inputs.confidence), self.options.frame)
            lost.status[:] = Status.OUT_OF_RANGE
            return [*settled, (number, lost)]
        if len(self._window) > self.lag:
            terms = result.terms if len(self._window) == 1 else None
            settled.append(self._settle(result.status, result.steps, result.cost, terms))
        return settled

    def flush(self) -> list[tuple[int, FitResult]]:
        """The frames that still waited for later ones; no later frame is of the same motion."""
        zero = torch.zeros(1, dtype=torch.int64, device=self.model.device)
        settled = [self._settle(zero, zero, self._wrist.new_zeros(1)) for _ in range(len(self._window))]
        self.reset()
        return settled

    def _append(self, alone: FitResult | None, seconds: float) -> None:
        """Room for one more frame: as fitted ``alone``, or where the motion so far leads to."""
        now = self._seconds.new_tensor([seconds])
        if alone is not None:
            pose, wrist = alone.pose, alone.transl + self.model.rest_points(alone.betas)[:, 0]
        elif len(self._seconds) == 1:
            pose, wrist = self._pose[-1:], self._wrist[-1:]
        else:
            step = now - self._seconds[-1]
            share = self.options.smoothness.fade(step) * step / (self._seconds[-1] - self._seconds[-2])
            turn = roma.rotmat_to_rotvec(self._pose[-2].mT @ self._pose[-1])
            pose = (self._pose[-1] @ roma.rotvec_to_rotmat(share * turn))[None]
            wrist = self._wrist[-1:] + share * (self._wrist[-1:] - self._wrist[-2:-1])
        self._pose, self._wrist = torch.cat([self._pose, pose]), torch.cat([self._wrist, wrist])
        self._seconds = torch.cat([self._seconds, now])

    def _state(self) -> State:
        return {"pose": self._pose[None], "wrist": self._wrist[None]}

    def _begin(self, problem: Window, inputs: FrameInputs) -> State:
        """The better start of the newest frame: where the motion leads to, or what the network says of it."""
        state = self._state()
        if not bool(inputs.good):
            return state
        rest = self.model.rest_points(self.betas[None])
        seen = problem.seen
        points = posed_points(self.model, inputs.pose, rest).points
        wrist, placed = wrist_from_keypoints(points, seen.projections[-1:], seen.keypoints[-1:], seen.weights[-1:])
        if not bool(placed):
            return state
        other = {name: value.clone() for name, value in state.items()}
        other["pose"][0, -1], other["wrist"][0, -1] = inputs.pose[0], wrist[0]
        moved = posed_points(self.model, self._pose[-1:], rest).points + self._wrist[-1:]
        both = torch.cat([moved, points + wrist])
        error = reprojection_rmse(both, inputs.K, seen.keypoints[-1:, 0], seen.weights[-1:, 0])
        return other if error[1] < error[0] else state

    def _problem(self, frames: int) -> Window:
        """The first ``frames`` of the window."""
        window = self._window[:frames]
        inputs = FrameInputs(
            **{name: torch.cat([getattr(one, name) for _, one, _ in window]) for name in vars(window[0][1])}
        )
        world = None
        if any(guess is not None for *_, guess in window):
            none = inputs.keypoints.new_full((1, 21, 3), torch.nan)
            world = torch.cat([none if guess is None else guess for *_, guess in window])
        seen = observe(self.model, inputs, self.options.frame, world)
        silence(seen, inputs.good)
        rest = self.model.rest_points(self.betas).expand(frames, -1, -1)
        seconds = self._seconds[: len(self._past) + frames]
        return Window(self.model, self._past, seen, rest, seconds, self.options.smoothness)

    def _settle(
        self, status: torch.Tensor, steps: torch.Tensor, cost: torch.Tensor, terms: State | None = None
    ) -> tuple[int, FitResult]:
        """The oldest frame of the window, which becomes part of the past; ``terms``: of the window, if it is alone."""
        number, inputs, _ = self._window[0]
        problem, place = self._problem(1), len(self._past)
        pose, wrist = self._pose[place : place + 1], self._wrist[place : place + 1]
        points = posed_points(self.model, pose, problem.rest).points + wrist[:, None]
        seen = problem.seen
        error = reprojection_rmse(points, inputs.K, seen.keypoints[:, 0], seen.weights[:, 0])
        fitted = FitResult(pose, wrist - problem.rest[:, 0], self.betas[None], status, error, steps, cost)
        now = {"pose": self._pose[None, : place + 1], "wrist": self._wrist[None, : place + 1]}
        self._past = _with_frame(now, problem.linearise(now) if terms is None else terms, problem.seconds)
        dropped = place + 1 - len(self._past)
        self._pose, self._wrist, self._seconds = self._pose[dropped:], self._wrist[dropped:], self._seconds[dropped:]
        del self._window[0]
        return number, fitted


def _with_frame(state: State, terms: State, seconds: torch.Tensor) -> Past:
    """The past with one more frame in it: ``terms`` at ``state`` of a window of one frame, reduced to the last two."""
    pose, wrist = state["pose"][0], state["wrist"][0]
    hessian, gradient, chart = terms["hessian"][0], terms["gradient"][0], terms["chart"][0, -1]
    own = torch.block_diag(*torch.linalg.inv(chart), torch.eye(3, dtype=pose.dtype, device=pose.device))
    to_local = torch.block_diag(torch.eye(len(gradient) - FRAME_SIZE, dtype=pose.dtype, device=pose.device), own)
    hessian, gradient = to_local.mT @ hessian @ to_local, to_local.mT @ gradient
    drop = FRAME_SIZE * max(len(pose) - 2, 0)
    if drop:
        inner, border = hessian[:drop, :drop].clone(), hessian[:drop, drop:]
        inner.diagonal().add_(marquardt(inner.diagonal(), inner.new_zeros(())))
        factor = factorise(inner[None])
        solved = solve_factored(factor, torch.cat([border, gradient[:drop, None]], dim=1)[None])[0]
        gradient = gradient[drop:] - border.mT @ solved[:, -1]
        hessian = hessian[drop:, drop:] - border.mT @ solved[:, :-1]
        hessian = (hessian + hessian.mT) / 2
    return Past(pose[-2:], wrist[-2:], seconds[-2:], hessian, gradient)
