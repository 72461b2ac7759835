"""`personalise`: another estimator's hands again, with one hand for all frames of a person, from Python."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from src.engine.estimates.tracks import frames_of
from src.estimators import read_estimates
from src.personalization.api import as_seen
from src.personalization.calibration.population import Population
from src.personalization.estimates.evidence import landmarks_of, prepare
from src.personalization.estimates.people import people_of
from src.personalization.estimates.personalise import calibrate_estimates, personalise_rows
from src.personalization.estimates.trust import Trust, load_trust
from src.personalization.landmarks.model import LandmarkModel, load_landmarks
from src.personalization.shape_source import check_side
from src.personalization.terms.hand_size import opened_identity, ruler_cues
from template import HandAssets, right_hand
from utils.artifacts import Identity, Predictions
from utils.short_repr import ShortRepr


@dataclass(repr=False)
class PersonalisedHands(ShortRepr):
    """N hands as they were read, left hands left, OpenCV camera frame, metres.

    Attributes:
        joints: (N,21,3) standard order; vertices: (N,778,3).
        pose: (N,16,3,3), betas: (N,10), transl: (N,3): of the hand model in use, of left hands of its mirror image.
        is_left: (N,); image_name: (N,); subject_id: (N,); track: (N,) with ``fps`` which hand it is, from 1; else 0.
        usable: (N,) bool, and status: (N,) names; where not usable the depth is a guess.
        reprojection_px: (N,) to the estimator's keypoints.
        identities: by subject, as given or calibrated.
        released: what `write_estimates` takes to write the estimator's own file again.
    """

    joints: np.ndarray
    vertices: np.ndarray
    pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    is_left: np.ndarray
    image_name: np.ndarray
    subject_id: np.ndarray
    track: np.ndarray
    usable: np.ndarray
    status: list[str]
    reprojection_px: np.ndarray
    identities: dict[int, Identity]
    released: Predictions


def personalise(
    estimates: Predictions | str | os.PathLike,
    K: np.ndarray | None = None,
    identity: Identity | str | os.PathLike | dict[int, Identity | str | os.PathLike] | None = None,
    *,
    format: str | None = None,
    hand_length_mm: float | None = None,
    hand_length_std_mm: float | None = None,
    hand: HandAssets | None = None,
    trust: Trust | str | os.PathLike | None = None,
    landmarks: LandmarkModel | str | os.PathLike | None = None,
    prior: Population | None = None,
    theirs: bool | None = None,
    accept_conflict: bool = False,
    fps: float | None = None,
    device: torch.device | str = "cpu",
    **read_options: Any,
) -> PersonalisedHands:
    """One shape for all frames of a person, laid on the estimator's keypoints and joints, at metric depth.

    >>> hands = handid.personalise("results", K, format="hamer", hand_length_mm=183)
    >>> hands.joints, hands.identities[0].interval_mm

    Args:
        estimates: of `read_estimates`, or the path that it reads, with ``format`` and its further options.
        K: (3,3) px of the pictures; of `Predictions` that were read with theirs not needed.
        identity: of the person, or its file, or by subject number; None: calibrated from these very hands.
        hand_length_mm, hand_length_std_mm (3): ruler, wrist joint to middle fingertip, if there is no identity yet.
        hand: the right hand's model, also for left hands; None: `load_hand_assets`.
        trust: in the estimator, or its file; None: the shipped one.
        landmarks: where its points lie on the hand, or the file; None: the shipped ones, of formats that have them.
        prior: people's shapes; None: see `people.people_of`.
        theirs: its pose and betas are of the hand model in use; None: if both are MANO.
        accept_conflict: go on where one hand does not explain a person's images.
        fps: the pictures are frames of a video, at so many a second, numbered at the end of their names: each hand is
            followed, and its frames are fitted together, smoothly.

    Raises:
        CalibrationError: nothing usable, several people taken for one, or a length that contradicts the images.
        ValueError: an identity of another subject. ArtifactError, FileNotFoundError, ValueError: see `read_estimates`.
    """
    assets = right_hand(hand)
    if not isinstance(estimates, Predictions):
        if format is None:
            raise ValueError("estimates from a path need format, e.g. 'hamer'")
        estimates = read_estimates(estimates, format, K=K, **read_options)
    elif read_options or K is not None:
        raise ValueError("give K and options of reading to read_estimates, or personalise a path")
    if trust is not None and not isinstance(trust, Trust):
        trust = load_trust(trust)
    if landmarks is None:
        landmarks = landmarks_of(estimates.model_name, assets)
    elif not isinstance(landmarks, LandmarkModel):
        landmarks = load_landmarks(landmarks, assets.hash)
    if fps is not None and not 0 < fps < np.inf:
        raise ValueError(f"fps is {fps}; frames a second are meant")
    people, frames = people_of(assets) if prior is None else prior, None if fps is None else frames_of(estimates)
    if identity is not None:
        if hand_length_mm is not None or hand_length_std_mm is not None or prior is not None or accept_conflict:
            raise ValueError(
                "hand_length_mm, prior and accept_conflict are for calibrating; identity says what hand it is"
            )
        identities = _identities(identity, estimates, assets)
    ready = prepare(estimates, assets, people, trust, landmarks, theirs, device)
    if identity is None:
        cues = ruler_cues(hand_length_mm, hand_length_std_mm)
        one_video = True if frames is not None and not frames.video.any() else None
        given = {"accept_conflict": accept_conflict, "device": device, "created_by": "handid.personalise"}
        identities = calibrate_estimates(ready, assets, people, cues, same_video=one_video, **given)
    motion = None
    if frames is not None:
        ready = replace(ready, rows=replace(ready.rows, sequence_id=frames.track))
        motion = frames.track, frames.frame / fps
    found = personalise_rows(ready, identities, assets, device, motion)
    rows = found.rows  # of right hands; what is returned has left ones left
    assert rows.pose is not None and rows.betas is not None and rows.transl is not None and rows.status is not None
    left, given = rows.is_left, (rows.pose, rows.betas, rows.transl, rows.status, rows.is_left)
    seen = as_seen(assets, *(torch.as_tensor(value) for value in given))
    return PersonalisedHands(
        **{name: value if name == "status" else value.numpy() for name, value in seen.items()},
        betas=rows.betas,
        is_left=left,
        image_name=np.array([""] * len(left)) if rows.image_name is None else rows.image_name,
        subject_id=rows.subject_id,
        track=rows.sequence_id,
        reprojection_px=found.reprojection_px,
        identities=found.identities,
        released=found.released,
    )


def _identities(
    given: Identity | str | os.PathLike | dict[int, Identity | str | os.PathLike],
    estimates: Predictions,
    assets: HandAssets,
) -> dict[int, Identity]:
    """Those of the subjects of ``estimates``, each of this hand model and of a side that is seen."""
    subjects = np.unique(estimates.subject_id).tolist()
    if not isinstance(given, dict):
        if len(subjects) > 1:
            raise ValueError(f"one identity, but the hands are of the subjects {subjects}; give a dict by subject")
        given = {subjects[0]: given}
    if lacking := [subject for subject in subjects if subject not in given]:
        raise ValueError(f"no identity of the subjects {lacking}; there are those of {sorted(given)}")
    found = {subject: opened_identity(given[subject], assets) for subject in subjects}
    for subject, identity in found.items():
        if identity.subject_id not in (None, subject):
            raise ValueError(
                f"{identity.source or 'the identity'} is of subject {identity.subject_id}, the hands are of subject "
                f"{subject}; give that person's, or a dict by subject"
            )
        check_side(identity, subject, estimates.is_left[estimates.subject_id == subject])
    return found
