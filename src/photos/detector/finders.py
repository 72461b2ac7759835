"""Which detector looks for hands: by the name that ``--keypoints`` has for it."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from options.image_options import DETECTOR, OWN
from src.personalization.landmarks.model import SHIPPED, LandmarkModel, find_landmarks
from src.photos.detector.detection import Finder, finder_name
from src.photos.detector.mediapipe_hands import find_hands
from src.photos.detector.own_hands import open_own_hands
from template import HandAssets

#: What finders learned from, for whoever reads the results.
DETECTOR_TRAINED_ON = "real pictures, by mediapipe's makers; the fit behind it is not trained"
OWN_TRAINED_ON = "rendered pictures of synthetic hands in all kinds of places, no real picture; the fit is not trained"


def open_finder(
    source: str = DETECTOR,
    landmarker: str | os.PathLike | None = None,
    folder: Path = SHIPPED,
    device: torch.device | str = "cpu",
) -> Finder:
    """A detector, ready to be called with pictures.

    Args:
        source: "mediapipe", or "own": our own networks of a folder of weights, which run on ``device``.
        landmarker: a ``.task`` file of mediapipe's, see `find_hands`.

    Raises:
        ImportError: mediapipe is not installed; says how to get it. FileNotFoundError: no own weights in the folder.
        FileNotFoundError, ValueError: as `open_landmarker`; another source, or a landmarker that it does not use.
    """
    if source == OWN:
        if landmarker is not None:
            raise ValueError(f"--landmarker is of --keypoints {DETECTOR}, not of our own detector; leave it out")
        return open_own_hands(folder, device)
    if source != DETECTOR:
        raise ValueError(f"keypoints are {source!r}; photos take {DETECTOR!r} or {OWN!r}")
    finder = find_hands if landmarker is None else functools.partial(find_hands, landmarker=os.fspath(landmarker))
    finder(np.zeros((64, 64, 3), np.uint8))
    return finder


def landmarks_of(finder: Finder, assets: HandAssets) -> LandmarkModel | None:
    """Where a detector's points lie on the hand; None: on its joints and tips, as our own networks' do."""
    return find_landmarks(DETECTOR, assets) if finder_name(finder) == DETECTOR else None


def beliefs_of(finder: Finder, assets: HandAssets) -> dict[str, Any]:
    """How far a detector's own depths and poses are believed, as options of a fit; nothing where its landmarks say
    that, or it gives none. Poses are of one hand model and say nothing of another."""
    given = {"world_std": getattr(finder, "world_std", None)}
    if getattr(finder, "hand_hash", None) == assets.hash:
        given["prediction"] = getattr(finder, "prediction", None)
    return {name: value for name, value in given.items() if value is not None}


def finder_trained_on(finder: Finder | None) -> str:
    """What a detector has seen; mediapipe where None says whose keypoints they are."""
    is_own = finder is not None and finder_name(finder) != DETECTOR
    return OWN_TRAINED_ON if is_own else DETECTOR_TRAINED_ON
