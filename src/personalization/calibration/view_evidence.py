"""What frames say of a person, pose and wrist of each integrated out, and the views of a hand that they are kept in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from scipy.stats import chi2

from src.personalization.calibration.problem import (
    BETAS,
    OFFSETS,
    OWN,
    PERSON,
    MultiFrameProblem,
    log_volume_gradient,
    reaction,
)
from src.personalization.solver.levenberg_marquardt import LMOptions, State, minimise
from src.personalization.terms.frame_problem import FrameProblem, ShapePrior
from src.personalization.terms.frame_terms import Observations, evaluate_frames
from template.kinematics import JointsModel

#: Directions in which evidence says less than this part of what is known do not tell hands apart.
LEAST_TOLD = 0.05


@dataclass
class Evidence:
    """A quadratic in what is the person's, ``b.precision.b / 2 - pull.b``: (...,S,S) and (...,S), S = 10 betas, and 63
    coordinates (m, MANO's order) of how far the person's points lie off where these are solved for."""

    precision: torch.Tensor
    pull: torch.Tensor

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(self.precision + other.precision, self.pull + other.pull)

    def __mul__(self, weight: float) -> Evidence:
        return Evidence(weight * self.precision, weight * self.pull)

    def __getitem__(self, index: int) -> Evidence:
        return Evidence(self.precision[index], self.pull[index])


def no_evidence(like: torch.Tensor) -> Evidence:
    """Zero, of what is like ``like`` (S,)."""
    return Evidence(like.new_zeros(len(like), len(like)), torch.zeros_like(like))


def solve_frames(
    model: JointsModel, seen: Observations, state: State, lm: LMOptions, offsets: torch.Tensor | None = None
) -> tuple[State, torch.Tensor, Evidence]:
    """Fit N frames with betas and offsets held, and what each then says of these, pose and wrist integrated out.

    The Schur complement of a frame's normal equations at its optimum (Triggs et al. 2000, "Bundle adjustment",
    section 6.1): of the same residuals as `problem.MultiFrameProblem`.

    Args:
        seen: px; state: pose (N,16,3,3), wrist (N,3) m, betas (N,10).
        offsets: (21,3) m, MANO's order, how far the person's points lie from the model's; None: that is not asked.

    Returns:
        The fitted state, its `Status` (N,), and evidence (N,S,S), (N,S).
    """
    result = minimise(FrameProblem(moved(model, offsets), seen), state, lm)
    fitted = result.state
    held, rest = fitted["betas"], model.rest_points(fitted["betas"])
    each = None if offsets is None else offsets.expand(len(held), 21, 3)
    terms = evaluate_frames(model, seen, fitted["pose"], fitted["wrist"], rest, with_shape=True, offsets=each)
    if each is not None:
        held = torch.cat([held, each.flatten(1)], dim=1)
    react = reaction(terms.hessian)
    precision = terms.hessian[:, PERSON, PERSON] + terms.hessian[:, PERSON, OWN] @ react
    gradient = terms.gradient[:, PERSON] + (terms.gradient[:, None, OWN] @ react)[:, 0]
    precision = (precision + precision.mT) / 2
    return fitted, result.status, Evidence(precision, (precision @ held[..., None])[..., 0] - gradient)


def moved(model: JointsModel, offsets: torch.Tensor | None) -> JointsModel:
    """The model of a person whose points lie ``offsets`` (21,3) m further, MANO's order."""
    return model if offsets is None else model.moved(offsets[None])


def volume_gradients(model: JointsModel, seen: Observations, state: State) -> torch.Tensor:
    """`log_volume_gradient` (N,10) of each of N frames, a state of `solve_frames`; the model is the person's own."""
    zero = torch.zeros_like(state["betas"])
    none = ShapePrior(zero[0], zero.new_zeros(10, 10))
    problem = MultiFrameProblem(model, seen, zero.new_ones(len(zero), 1), none, (), zero)
    frames = state | {name: state[name][:, None] for name in ("pose", "wrist")}
    return log_volume_gradient(problem, frames, problem.linearise(frames))


@dataclass
class View:
    """Frames in which the hand is held and seen in one way.

    Attributes:
        points: (21,3) m, the joints of a mean hand about the wrist, camera axes, of the frame that opened the view.
        count: frames in it.
        others: sum of what its frames say, each linearised once where it was fitted, but for the key frame.
        key: what the key frame says, anew at every `Views.linearise`; seen, state: the key frame itself, or None where
            it is no longer kept.
        betas: (10,) sum of those that a network predicted in its frames; told: in how many.
        linear: (10,) Laplace's correction of a frame: `volume_gradients` of the key frame; None: not made.
    """

    points: torch.Tensor
    count: int
    others: Evidence
    key: Evidence
    seen: Observations | None
    state: State | None
    betas: torch.Tensor
    told: int
    linear: torch.Tensor | None = None

    @property
    def mean(self) -> Evidence:
        """Of one frame of this view."""
        found = (self.others + self.key) * (1 / self.count)
        if self.linear is not None:
            found.pull[BETAS] -= self.linear
        return found

    def join(self, other: View) -> None:
        """Take in another view's frames; its key frame is no longer kept."""
        self.count += other.count
        self.others = self.others + other.others + other.key
        self.betas, self.told = self.betas + other.betas, self.told + other.told


class Views:
    """The views of one hand.

    Args:
        same: m, mean distance of joints within which a frame shows a view again.
        kept: key frames that stay, to be linearised again; most: views, beyond which frames join the nearest.
    """

    def __init__(self, same: float, kept: int, most: int = 256) -> None:
        self.same, self.kept, self.most = same, kept, most
        self.all: list[View] = []

    def __len__(self) -> int:
        return len(self.all)

    @property
    def frames(self) -> int:
        return sum(view.count for view in self.all)

    def add(self, new: View) -> bool:
        """Take in one more frame, or view; says whether it is a view that was not there."""
        if self.all:
            away = (torch.stack([view.points for view in self.all]) - new.points).norm(dim=-1).mean(dim=-1)
            nearest = int(away.argmin())
            if float(away[nearest]) < self.same or len(self.all) >= self.most:
                self.all[nearest].join(new)
                return False
        self.all.append(new)
        held = [view for view in self.all if view.seen is not None]
        if len(held) > self.kept:  # the oldest one stays as it was linearised last
            held[0].seen = held[0].state = None
        return True

    def evidence(self, shared: float, like: torch.Tensor) -> Evidence:
        """Of all views together, ``shared`` of their errors being common to all (Kish 1965, 5.4)."""
        share = 1 / (1 + shared * (max(len(self.all), 1) - 1))
        return sum((view.mean for view in self.all), no_evidence(like)) * share

    def predicted(self, shared: float) -> tuple[torch.Tensor, float] | None:
        """Mean (10,) of the betas that a network predicted, views counting alike, and how many images it is worth."""
        told = [view for view in self.all if view.told]
        if not told:
            return None
        mean = torch.stack([view.betas / view.told for view in told]).mean(dim=0)
        return mean, len(told) / (1 + shared * (len(told) - 1))

    def linearise(
        self, model: JointsModel, person: torch.Tensor, lm: LMOptions, laplace: bool, again: float = 0.0
    ) -> None:
        """Fit the key frames again with betas and offsets as in ``person`` (S,), from where they were.

        Args:
            laplace: correct new views; again: and of what the others' correction lacks now, so much.
        """
        held = [view for view in self.all if view.seen is not None and view.state is not None]
        if not held:
            return
        state = {name: torch.cat([view.state[name] for view in held]) for name in ("pose", "wrist")}
        betas, offsets = parts_of(person)
        state["betas"] = betas.expand(len(held), 10)
        seen = stacked(view.seen for view in held)
        fitted, _, evidence = solve_frames(model, seen, state, lm, offsets)
        for row, view in enumerate(held):
            view.state = {name: fitted[name][row : row + 1] for name in ("pose", "wrist")}
            view.key = evidence[row]
        rows = torch.tensor([row for row, view in enumerate(held) if laplace and (again or view.linear is None)])
        if len(rows):
            part = {name: value[rows] for name, value in fitted.items()}
            volumes = volume_gradients(moved(model, offsets), seen.rows(rows), part)
            for row, volume in zip(rows.tolist(), volumes, strict=True):
                before = held[row].linear
                held[row].linear = volume if before is None else before + again * (volume - before)


def parts_of(person: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Betas (10,), and offsets (21,3) m if they are solved for, of what is the person's (S,)."""
    return person[BETAS], person[OFFSETS].unflatten(0, (21, 3)) if len(person) > BETAS.stop else None


def chance_of(seen: Evidence, person: torch.Tensor, covariance: torch.Tensor) -> float:
    """How often evidence of a hand contradicts (S,), (S,S) at least as much, if it is of the same hand.

    Along the directions that it says something about, its gradient there has the variance ``w + w^2``, w being
    its information there in units of what is known: the innovation test of a Kalman filter (Bar-Shalom, Li,
    Kirubarajan 2001, section 5.4).
    """
    root = torch.linalg.cholesky(covariance)
    information, axes = torch.linalg.eigh(root.mT @ seen.precision @ root)
    gradient = axes.mT @ (root.mT @ (seen.precision @ person - seen.pull))
    told = information > LEAST_TOLD
    squared = (gradient[told].square() / (information[told] + information[told].square())).sum()
    return float(chi2.sf(float(squared), int(told.sum()))) if bool(told.any()) else 1.0


def stacked(parts: Iterable[Observations]) -> Observations:
    """Observations of one frame each (px, m) as those of many; their priors are of the same kinds."""
    rows = list(parts)
    first = rows[0]
    arrays = {
        name: torch.cat([getattr(row, name) for row in rows])
        for name, value in vars(first).items()
        if isinstance(value, torch.Tensor)
    }
    priors = []
    for number, prior in enumerate(first.pose_priors):
        same = [row.pose_priors[number] for row in rows]
        reference = torch.cat([one.reference for one in same])
        precision = prior.precision if len(prior.precision) == 1 else torch.cat([one.precision for one in same])
        priors.append(replace(prior, reference=reference, precision=precision))
    return replace(first, pose_priors=priors, **arrays)
