"""Which frames of one hand's motion show it flat: all are fitted as such at once, and their evidence tells the runs."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from src.personalization.fitting.fit import FitOptions, FitResult, fit_frames
from src.personalization.fitting.from_keypoints import log_evidence
from src.personalization.solver.status import usable
from src.personalization.terms.population_pose_prior import FLAT_SHARE, FlatHand
from template.kinematics import JointsModel

#: s, how long a hand is shown flat before it is held otherwise (assumed, as `FLAT_SHARE`).
HELD = 1.0
#: s, how long errors of keypoints last: frames within it tell as much as one.
LASTS = 0.1
#: Share of frames whose evidence misleads, however strong it is.
MISLED = 0.01


def with_flat_runs(
    model: JointsModel,
    rows: dict[str, torch.Tensor],
    betas: torch.Tensor,
    seconds: torch.Tensor,
    options: FitOptions,
    flat: FlatHand,
) -> tuple[dict[str, torch.Tensor], FitOptions, torch.Tensor]:
    """What `fit_sequence` is given of T frames of one hand, with flat hands' prior where it is likely to be shown flat.

    A hand that is not may be held as usual, or be as straight and turned away: told from usual hands alone, one that is
    turned by 45 degrees seems flat. Straight hands turned anyhow are taken to be as frequent as those shown flat.

    Args:
        rows: pose (T,16,3,3), K (T,3,3), keypoints (T,21,2), confidence (T,21) and perhaps world (T,21,3) as of
            `fit_sequence`; betas: (10,); seconds: (T,); options: of a frame, with the prior of usual poses.

    Returns:
        both with flat poses to start from, their priors, and without 3D points there (see `FitOptions.flat`); and where
        that is, (T,) bool.
    """
    pose, world = rows["pose"], rows.get("world")
    given = betas.to(pose).expand(len(pose), -1), rows["K"], rows["keypoints"], rows["confidence"]
    (habit,) = options.extra_priors
    rough = replace(options, lm=replace(options.lm, max_steps=10, tolerance=0.03))  # evidence is of some units

    def told(pose: torch.Tensor, beliefs: FitOptions, world: torch.Tensor | None) -> tuple[FitResult, torch.Tensor]:
        fit = fit_frames(model, pose, *given, beliefs, world=world)
        evidence = log_evidence(model, fit, (*given[1:], None), beliefs)
        return fit, torch.where(usable(fit.status), evidence, -torch.inf)

    usual, as_usual = told(pose, rough, world)
    shown, as_shown = told(flat.start(usual.pose), replace(rough, flat=flat), world)
    straight = torch.cat([usual.pose[:, :1], shown.pose[:, 1:]], dim=1)
    _, as_turned = told(straight, replace(rough, extra_priors=(flat.turned(),)), None)
    share = FLAT_SHARE / (1 - FLAT_SHARE)
    other = torch.logaddexp(as_usual + math.log1p(-share), as_turned + flat.straightness(habit) + math.log(share))
    odds = torch.where(flat.are_shown(shown.pose), as_shown - other, -torch.inf) + flat.log_odds(habit)
    told_both = usable(usual.status) & usable(shown.status) & ~odds.isnan()  # else it says nothing
    odds = torch.where(told_both, odds - math.log(share), 0.0)
    run = likeliest_run(odds.cpu(), seconds.cpu()).to(pose.device)
    if not run.any():
        return rows, options, run
    start = torch.where(run[:, None, None, None], shown.pose.to(pose), pose)
    rows = {**rows, "pose": start}
    if world is not None:
        rows["world"] = torch.where(run[:, None, None], torch.nan, world)
    return rows, replace(options, extra_priors=(flat.instead(habit, start, run),)), run


def likeliest_run(odds: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
    """(T,) bool: whether a hand is shown flat, in the likeliest sequence of such frames and others (Viterbi 1967).

    Args:
        odds: (T,) log of the likelihood of each frame being flat over not; seconds: (T,) increasing.
    """
    sure = math.log(1 - MISLED) - math.log(MISLED)
    gain = torch.logaddexp(odds + sure, torch.zeros_like(odds)) - torch.logaddexp(odds, torch.full_like(odds, sure))
    step = seconds.diff(prepend=seconds[:1] - LASTS)
    gain = torch.where(odds == torch.inf, sure, gain) * (step / LASTS).clamp(max=1.0)
    change = -torch.expm1(-step / (HELD * (1 - FLAT_SHARE)))  # of a hand that is shown flat for its share of the time
    leave, enter = change * (1 - FLAT_SHARE), change * FLAT_SHARE
    moves = torch.stack([1 - enter, leave, enter, 1 - leave], dim=1).log().view(-1, 2, 2)  # to, from
    best, before = torch.tensor([1 - FLAT_SHARE, FLAT_SHARE], dtype=odds.dtype).log(), []
    best[1] += gain[0]
    for row in range(1, len(odds)):
        best, came = (best + moves[row]).max(dim=1)
        best[1] += gain[row]
        before.append(came.tolist())
    run = [int(best.argmax())]
    for came in reversed(before):
        run.append(came[run[-1]])
    return torch.tensor(run[::-1], dtype=torch.bool)
