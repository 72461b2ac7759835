"""The causal twin of `fit_sequence`: each frame as it comes, from what was seen up to ``lag`` frames later."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from src.personalization.fitting.fit import FitResult, fit_frames, observe, reprojection_rmse
from src.personalization.fitting.lag_window import Past, Window, exponential, with_frame
from src.personalization.fitting.sequence import LARGEST_GAP, SequenceOptions, silence
from src.personalization.fitting.translation import wrist_from_keypoints
from src.personalization.solver.levenberg_marquardt import LMOptions, State, minimise
from src.personalization.solver.status import Status, in_range, usable
from src.personalization.terms.inputs import FrameInputs, check_frames
from src.personalization.terms.pose_prior import rotation_log
from src.personalization.terms.smoothness import Smoothness
from template.kinematics import JointsModel

#: Of a stream nothing is known of what comes next: velocities may change more, and fade sooner, than in hindsight.
DEFAULTS = SequenceOptions(smoothness=Smoothness(3.0, 4.5, 0.4, memory=0.2))
#: Linear systems solved for a frame; the next frame goes on from there. Damped steps suit a window, whose frames are
#: solved for again and again.
STEPS = LMOptions(max_steps=2, tolerance=3e-2)
#: The same without a lag: a frame is solved for once, and damping would leave it short of its minimum; one step reaches
#: it, mostly.
STEPS_AT_ONCE = LMOptions(max_steps=2, tolerance=3e-2, initial_damping=1e-8)
#: Standard deviations (root mean square) by which the motion may miss a frame's keypoints and still be where to start.
NEAR = 3.0


class FixedLagSmoother:
    """One hand in a stream of frames.

    What leaves the window stays as a Gaussian on the last two poses (position and velocity), as in Dong-Si and
    Mourikis 2011, "Motion tracking with fixed-lag smoothing": older frames are eliminated by their Schur complement.

    Args:
        model: the joints-only hand, float64 on the CPU; betas: (10,) of the person (`betas` may be set anew at any
            time).
        options: as for `fit_sequence`, the shape held; lag: frames that a result waits for, 0 for live use.

    Raises:
        ValueError: a negative lag, another model.
    """

    def __init__(
        self, model: JointsModel, betas: torch.Tensor, options: SequenceOptions = DEFAULTS, lag: int = 0
    ) -> None:
        if lag < 0:
            raise ValueError(f"a lag of {lag} frames: it must be 0 or more")
        if model.dtype != torch.float64 or model.device.type != "cpu":
            raise ValueError(
                f"a stream keeps small differences of one hand: float64 on cpu, not {model.dtype} on {model.device}"
            )
        self.model, self.options, self.lag = model, options, lag
        self.betas = betas
        self._count = 0
        self.reset()

    def reset(self) -> None:
        """Forget every frame: a new hand."""
        none = np.zeros((0, 3))
        self._past = Past(np.zeros((0, 16, 3, 3)), none, none[:, 0], np.zeros((0, 0)), none[:, 0])
        self._pose, self._wrist, self._seconds = self._past.pose, none, none[:, 0]  # of past and window
        self._window: list[tuple[int, FrameInputs, torch.Tensor | None]] = []
        self._seen = -math.inf  # s, of the newest frame that shows the hand

    @torch.no_grad()
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
            mostly the one ``lag`` frames ago. Not usable are those that came when nothing said where the hand is, and
            nothing had for `LARGEST_GAP`.

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
            if seconds - last > LARGEST_GAP:
                settled = self.flush()
        number, self._count = self._count, self._count + 1
        to = {"device": self.model.device, "dtype": self.model.dtype}
        self.betas = torch.as_tensor(self.betas, **to)  # as they were set last
        given = [value.to(**to)[None] for value in (pose, self.betas, K, keypoints)]
        trust = None if confidence is None else confidence.to(**to)[None]
        guess = None if world is None else world.to(**to)[None]
        inputs = check_frames(*given, trust, self.options.frame.noise.min_confidence)
        if bool(inputs.good[-1]):
            self._seen = seconds
        elif len(self._seconds) and seconds - self._seen > LARGEST_GAP:
            settled += self.flush()
        alone = None
        if len(self._seconds) == 0:
            alone = fit_frames(self.model, *given, trust, self.options.frame, world=guess)
            if not bool(usable(alone.status)):
                return [*settled, (number, alone)]
        self._window.append((number, inputs, guess))
        self._append(alone, seconds)
        problem = self._problem(len(self._window))
        state = self._begin(problem) if alone is None else self._state()
        result = minimise(problem, state, STEPS if self.lag else STEPS_AT_ONCE)
        self._pose, self._wrist = (result.state[name][0].numpy() for name in ("pose", "wrist"))
        self._solved = result.status, result.steps, result.cost
        if not bool(in_range(result.state["wrist"][0, len(self._past) :], problem.inputs.K).all()):
            self._window.pop()
            self._pose, self._wrist, self._seconds = self._pose[:-1], self._wrist[:-1], self._seconds[:-1]
            settled += self.flush()
            lost = fit_frames(self.model, *given, torch.zeros_like(inputs.confidence), self.options.frame)
            lost.status[:] = Status.OUT_OF_RANGE
            return [*settled, (number, lost)]
        if len(self._window) > self.lag:
            alone = (problem, result.terms) if len(self._window) == 1 else None
            settled.append(self._settle(result.status, result.steps, result.cost, alone))
        return settled

    def flush(self) -> list[tuple[int, FitResult]]:
        """The frames that still waited for later ones; no later frame is of the same motion."""
        settled = [self._settle(*self._solved) for _ in range(len(self._window))]
        self.reset()
        return settled

    def _append(self, alone: FitResult | None, seconds: float) -> None:
        """Room for one more frame: as fitted ``alone``, or where the motion so far leads to."""
        if alone is not None:
            pose, wrist = alone.pose.numpy(), (alone.transl + self.model.rest_points(alone.betas)[:, 0]).numpy()
        elif len(self._seconds) == 1:
            pose, wrist = self._pose[-1:], self._wrist[-1:]
        else:
            step = seconds - self._seconds[-1]
            share = self.options.smoothness.fade(step) * step / (self._seconds[-1] - self._seconds[-2])
            turn = rotation_log((self._pose[-2].mT @ self._pose[-1]).transpose(1, 2, 0)).T
            pose = (self._pose[-1] @ exponential(share * turn))[None]
            wrist = self._wrist[-1:] + share * (self._wrist[-1:] - self._wrist[-2:-1])
        self._pose, self._wrist = np.concatenate([self._pose, pose]), np.concatenate([self._wrist, wrist])
        self._seconds = np.append(self._seconds, seconds)

    def _state(self) -> State:
        return {"pose": torch.from_numpy(self._pose)[None], "wrist": torch.from_numpy(self._wrist)[None]}

    def _begin(self, problem: Window) -> State:
        """Where to start the newest frame: where the motion leads to, or, if that misses it, what the network says."""
        inputs, seen = problem.inputs, problem.seen
        if not bool(inputs.good[-1]):
            return self._state()
        K, keypoints, weights = (part[-1:].numpy() for part in (inputs.K, seen.keypoints[:, 0], seen.weights[:, 0]))

        def posed(pose: NDArray) -> NDArray:
            return self.model.few.pose(pose, problem.rest[-1:].numpy()).points

        def missed(points: NDArray) -> float:
            return float(reprojection_rmse(points, K, keypoints, weights)[0])

        error = missed(posed(self._pose[-1:]) + self._wrist[-1:, None])
        if error**2 * float(weights.sum()) > NEAR**2 * int((weights > 0).sum()):
            points = posed(inputs.pose[-1:].numpy())
            given = (part[-1:] for part in (seen.projections, seen.keypoints, seen.weights))
            wrist, placed = wrist_from_keypoints(torch.from_numpy(points), *given)
            if bool(placed) and missed(points + wrist.numpy()[:, None]) < error:
                self._pose[-1], self._wrist[-1] = inputs.pose[-1], wrist[0]
        return self._state()

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
        return Window(self.model, self._past, inputs, seen, rest, seconds, self.options.smoothness)

    def _settle(
        self, status: torch.Tensor, steps: torch.Tensor, cost: torch.Tensor, alone: tuple[Window, State] | None = None
    ) -> tuple[int, FitResult]:
        """The oldest frame of the window, which becomes part of the past; ``alone``: its problem, and terms."""
        place = len(self._past)
        problem = self._problem(1) if alone is None else alone[0]
        now = {name: value[:, : place + 1] for name, value in self._state().items()}
        terms = problem.linearise(now) if alone is None else alone[1]
        pose, wrist, seen = now["pose"][0, place:], now["wrist"][0, place:], problem.seen
        points = terms["points"][0] + wrist[:, None]
        given = (points, problem.inputs.K, seen.keypoints[:, 0], seen.weights[:, 0])
        error = torch.from_numpy(reprojection_rmse(*(part.numpy() for part in given)))
        fitted = FitResult(pose, wrist - problem.rest[:, 0], self.betas[None], status, error, steps, cost)
        self._past = with_frame(now, terms, problem.seconds)
        dropped = place + 1 - len(self._past)
        self._pose, self._wrist, self._seconds = self._pose[dropped:], self._wrist[dropped:], self._seconds[dropped:]
        return self._window.pop(0)[0], fitted
