"""Whether a hand is shown flat, by the evidence of its fits; of a motion all frames at once, which are so in runs."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from src.personalization.fitting.fit import FitOptions, FitResult, fit_frames, problem_at
from src.personalization.solver.status import usable
from src.personalization.terms.pose_prior import FLAT_SHARE, FlatHand
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

    Args:
        rows: pose (T,16,3,3), K (T,3,3), keypoints (T,21,2), confidence (T,21) and perhaps world (T,21,3) as of
            `fit_sequence`; betas: (10,); seconds: (T,); options: of a frame, with the prior of usual poses.

    Returns:
        both with flat poses to start from, their priors, and without 3D points there (see `FitOptions.flat`); and where
        that is, (T,) bool.
    """
    pose, world = rows["pose"], rows.get("world")
    given = betas.to(pose).expand(len(pose), -1), rows["K"], rows["keypoints"], rows["confidence"]
    rough = replace(options, lm=replace(options.lm, max_steps=10, tolerance=0.03))  # evidence is of some units
    usual = fit_frames(model, pose, *given, rough, world=world)
    begin = flat.start(usual.pose, rows["K"])
    shown = fit_frames(model, begin, *given, replace(rough, flat=flat), world=world)
    odds = flat_odds(model, usual, shown, given[1:], rough, flat) - math.log(FLAT_SHARE / (1 - FLAT_SHARE))
    told = usable(usual.status) & usable(shown.status) & ~odds.isnan()  # else it says nothing
    odds = torch.where(told, odds, 0.0)
    run = likeliest_run(odds.cpu(), seconds.cpu()).to(pose.device)
    if not run.any():
        return rows, options, run
    start = torch.where(run[:, None, None, None], shown.pose.to(pose), pose)
    rows = {**rows, "pose": start}
    if world is not None:
        rows["world"] = torch.where(run[:, None, None], torch.nan, world)
    priors, _ = flat.instead(options.extra_priors, start, rows["K"], run)
    return rows, replace(options, extra_priors=tuple(priors)), run


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


def flat_odds(
    model: JointsModel, usual: FitResult, shown: FitResult, given: tuple, options: FitOptions, flat: FlatHand
) -> torch.Tensor:
    """(N,) log odds of hands being shown flat, fitted as ``shown``, over their being held otherwise.

    A hand that is not shown flat may be held as usual, or be as straight and turned away: told from usual hands alone,
    one that is turned by 20 or 30 degrees seems flat. Straight hands turned anyhow are taken to be as frequent as those
    shown flat.

    Args:
        usual: fits of N hands with the usual prior, which ``options`` has; given: K, keypoints and confidence of them.
    """
    (habit,) = options.extra_priors
    odds = torch.full_like(usual.cost, -torch.inf)
    good = usable(shown.status) & flat.are_shown(shown.pose, given[0])
    rows = good.nonzero()[:, 0]
    if len(rows):
        usual, shown = usual.rows(rows), shown.rows(rows)
        given = tuple(None if value is None else value[rows] for value in given[:3])
        straight = torch.cat([usual.pose[:, :1], shown.pose[:, 1:]], dim=1)
        turning = replace(options, extra_priors=(flat.turned(),))
        turned = fit_frames(model, straight, usual.betas, *given, turning)
        said = ((usual, options), (turned, turning), (shown, replace(options, flat=flat)))
        as_usual, as_turned, as_shown = (_log_evidence(model, fit, given, beliefs) for fit, beliefs in said)
        share = FLAT_SHARE / (1 - FLAT_SHARE)
        as_turned = as_turned + flat.straightness(habit) + math.log(share)
        other = torch.logaddexp(as_usual + math.log1p(-share), as_turned)
        odds[rows] = as_shown - other + flat.log_odds(habit)
    return odds


def _log_evidence(model: JointsModel, found: FitResult, given: tuple, options: FitOptions) -> torch.Tensor:
    """(N,) by Laplace's method, up to what two priors have in common, of keypoints alone: not of 3D points.

    Every keypoint counts fully: a bent finger is no outlier of a flat hand. Minus infinity where there is no fit.
    """
    fully = replace(options, noise=replace(options.noise, loss="none"))
    problem, state = problem_at(model, found, *given, None, fully)
    terms = problem.linearise(state)
    # The hand's orientation is measured by its own small turns, not by the logarithms of one or the other prior.
    room = torch.linalg.slogdet(terms["hessian"])[1] / 2 - terms["chart"][:, 0].det().abs().log()
    return torch.where(usable(found.status), -terms["cost"] - room, -torch.inf)
