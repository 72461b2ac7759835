"""Warm starts: each frame of a video is fitted from the frame before it."""

from __future__ import annotations

import numpy as np
import torch

from src.personalization.fitting.fit import FitOptions, FitResult, fit_frames
from src.personalization.solver.status import usable
from template.kinematics import JointsModel

DEFAULTS = FitOptions()


def chain_positions(image_id: np.ndarray, sequence_id: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Previous row (N,), -1 at a beginning, and place in its video (N,), from official numbers.

    Consecutive image ids of one sequence and one camera (equal K) are consecutive frames (docs/facts.md 1.7).
    """
    n = len(image_id)
    previous, place = np.full(n, -1), np.zeros(n, dtype=np.int64)
    row_of = {int(number): row for row, number in enumerate(image_id)}
    for row in np.argsort(image_id, kind="stable"):
        before = row_of.get(int(image_id[row]) - 1, -1)
        if before >= 0 and sequence_id[before] == sequence_id[row] and np.array_equal(K[before], K[row]):
            previous[row], place[row] = before, place[before] + 1
    return previous, place


def fit_video(
    model: JointsModel,
    arrays: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    confidence: torch.Tensor | None,
    previous: np.ndarray,
    place: np.ndarray,
    options: FitOptions = DEFAULTS,
) -> FitResult:
    """`fit_frames` with warm starts; all videos advance together, one frame at a time.

    The prior of a frame stays at its own network's pose; only the start comes from the previous frame
    (from the network where that failed).

    Args:
        arrays: pose, betas, K (px), keypoints (px) as in `fit_frames`.
        previous, place: of `chain_positions`.
    """
    whole: FitResult | None = None
    for now in range(int(place.max(initial=0)) + 1):
        rows = np.flatnonzero(place == now)
        warm = np.zeros(len(rows), dtype=bool)
        if whole is not None:
            warm = usable(whole.status).cpu().numpy()[previous[rows]]
        for part, start in ((rows[~warm], None), (rows[warm], whole)):
            if len(part) == 0:
                continue
            index = torch.as_tensor(part, device=arrays[0].device)
            before = torch.as_tensor(previous[part], device=model.device)
            begin = None if start is None else (start.pose[before], start.transl[before])
            chosen = None if confidence is None else confidence[index]
            found = fit_frames(model, *(value[index] for value in arrays), chosen, options, begin)
            whole = _put(whole, found, index.to(model.device), len(place))
    return fit_frames(model, *arrays, confidence, options) if whole is None else whole


def _put(whole: FitResult | None, part: FitResult, rows: torch.Tensor, n: int) -> FitResult:
    merged = {}
    for name, value in vars(part).items():
        full = value.new_zeros(n, *value.shape[1:]) if whole is None else getattr(whole, name)
        merged[name] = full.index_copy(0, rows, value)
    return FitResult(**merged)
