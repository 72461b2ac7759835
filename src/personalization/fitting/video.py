"""The videos in a set of official predictions: which rows follow each other, and their fit as sequences."""

from __future__ import annotations

import numpy as np
import torch

from src.personalization.fitting.fit import FitResult
from src.personalization.fitting.sequence import SequenceOptions, fit_sequence
from template.kinematics import JointsModel

#: Frames a second of DexYCB's and HO-3D's cameras (docs/facts.md).
FRAME_RATE = 30.0


def video_order(image_id: np.ndarray, sequence_id: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N,) sorted into videos, and the number of each one's video (N,), from official numbers.

    Consecutive image ids of one sequence and one camera (equal K) are consecutive frames (docs/facts.md 1.7).
    """
    order = np.argsort(image_id, kind="stable")
    ids, cameras = image_id[order], K[order].reshape(len(order), -1)
    follows = (np.diff(ids) == 1) & (np.diff(sequence_id[order]) == 0) & (cameras[1:] == cameras[:-1]).all(axis=1)
    return order, np.concatenate([[0], np.cumsum(~follows)])[: len(order)]


def fit_videos(
    model: JointsModel,
    arrays: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    confidence: torch.Tensor | None,
    order: np.ndarray,
    video: np.ndarray,
    options: SequenceOptions,
    seconds: torch.Tensor | None = None,
) -> FitResult:
    """`fit_sequence` of every video, all in one system.

    Args:
        arrays: pose, betas (N,10), K, keypoints as in `fit_frames`; order, video: of `video_order`.
        seconds: (N,) when each row was taken; None: one after the other at `FRAME_RATE`.
    """
    rows = torch.as_tensor(order, device=arrays[0].device)
    pose, betas, K, keypoints = (value[rows] for value in arrays)
    chosen = None if confidence is None else confidence[rows]
    steady = torch.arange(len(rows), dtype=torch.float64) / FRAME_RATE
    seconds = steady if seconds is None else seconds[order]
    found = fit_sequence(model, pose, betas, K, keypoints, seconds, chosen, options, torch.as_tensor(video))
    back = torch.argsort(rows)
    return FitResult(**{name: value[back] for name, value in vars(found).items()})
