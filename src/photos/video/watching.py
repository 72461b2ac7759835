"""A person's identity that grows while a video is watched: the shape to fit with, and the file that is left."""

from __future__ import annotations

import argparse
import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.models.mesh_joints import is_mesh_model
from src.personalization.calibration.from_keypoints import keypoint_options
from src.personalization.calibration.online import OnlineCalibration, OnlineOptions
from src.personalization.calibration.population import CalibrationOptions, default_options, shapes_of
from src.personalization.terms.hand_size import parse_known_bone, ruler_cues
from src.photos.api import PhotoEstimator
from src.photos.detector.finders import landmarks_of
from src.photos.gallery import command_line
from src.photos.perspective import in_view
from src.photos.result import HandLength, Result
from src.photos.shape_filter import MEASURED, ShapeFilter
from template import mirror_pose
from utils.artifacts import save_identity

logger = logging.getLogger(__name__)

#: The file is written again when its interval has become shorter by this part.
WRITE_AGAIN = 0.05
#: Options that mean nothing where no identity grows.
OWN_OPTIONS = ("--calibrate_until_mm", "--hand_length_mm", "--hand_length_std_mm", "--known_bone", "--accept_conflict")


class Watching(contextlib.AbstractContextManager):
    """One person's calibration in a video.

    Args:
        online: that collects; path: of the identity file.
        first_only: only the first hand counts; else whatever looks like the same person's.

    Attributes:
        is_written: there is a file, which holds what was known when it was last written.
    """

    def __init__(self, online: OnlineCalibration, path: Path, first_only: bool = False) -> None:
        self.online, self.path, self.first_only = online, path, first_only
        self.is_written, self._first, self._width = False, -1, np.inf

    def is_another(self, track: int) -> bool:
        """The hand is known not to be this person's, or shall not count."""
        return track in self.online.strangers or (self.first_only and self._first not in (-1, track))

    def see(self, hand: Result, track: int, seconds: float) -> None:
        """Take in a hand that was found in a frame."""
        self._first = track if self._first == -1 else self._first
        if self.is_another(track) or hand.pose is None:
            return
        seen = in_view(hand)  # a pinhole camera's, without distortion, that faces the hand: its depth is judged
        pose = seen.pose if seen.predicted_pose is None else seen.predicted_pose
        if hand.side == "left":
            pose = mirror_pose(torch.as_tensor(pose))
        self.online.add(
            seen.keypoints,
            seen.confidence,
            K=seen.K,
            pose=pose,
            betas=seen.predicted_betas,
            hand=hand.side,
            track=track,
            instant=seconds,
        )
        if self.online.is_ready and self._length() < (1 - WRITE_AGAIN) * self._width:
            self._write(f"after {seconds:.1f} s")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or kind is KeyboardInterrupt:  # whoever stops a video has seen enough of it
            self.close()

    def close(self) -> None:
        """The end of the video: the last word, if there is enough."""
        identity = self.online.settle()
        if identity.n_images == 0:
            return
        if self.online.is_ready:
            return self._write("at the end")
        asked = self.online.online
        conflict = self.online.conflict()
        reason = conflict or (
            f"{self.online.views} views and a 95% interval of {self._length():.0f} mm, {asked.least_views} and "
            f"{asked.narrow_mm:g} are asked for (--calibrate_until_mm); a measured length narrows it (--hand_length_mm)"
        )
        if self.is_written and conflict is not None:  # before that was known
            self.path.unlink(missing_ok=True)
            self.is_written = False
        old = f"; {self.path} is of an earlier run" if self.path.exists() and not self.is_written else ""
        logger.info("no identity is written: %s%s", reason, old)

    def note(self) -> dict[str, Any]:
        """What a frame's line says of it: frames, views, hand length and its 95% interval, mm, and the file."""
        identity = self.online.identity()
        low, high = identity.interval_mm
        return {
            "frames": identity.n_images,
            "views": self.online.views,
            "hand_length_mm": round(identity.length_mm, 2),
            "interval_95_mm": [round(low, 2), round(high, 2)],
            "file": self.path.name if self.is_written else None,
        }

    def _length(self) -> float:
        low, high = self.online.identity().interval_mm
        return high - low

    def _write(self, when: str) -> None:
        identity = replace(self.online.identity(), created_by=command_line())
        save_identity(self.path, identity)
        low, high = identity.interval_mm
        if not self.is_written or when == "at the end":
            logger.info(
                "the hand is known well enough %s: %.0f mm (95%%: %.0f to %.0f), %d views; --identity takes %s",
                when, identity.length_mm, low, high, self.online.views, self.path,
            )  # fmt: skip
        self.is_written, self._width = True, high - low


class WatchedShape(ShapeFilter):
    """The shape of the person who is watched; of another person's hand, what its own frames say."""

    def __init__(self, tools: PhotoEstimator, watching: Watching) -> None:
        super().__init__(tools.assets, None, tools.population)
        self.watching = watching
        self._refresh()

    def __copy__(self) -> WatchedShape:
        new = object.__new__(WatchedShape)
        new.__dict__.update(self.__dict__)
        new._refresh()
        return new

    def update(self, predicted: np.ndarray) -> np.ndarray:
        """See `ShapeFilter.update`: the person's evidence comes in by `saw`."""
        return super().update(predicted) if self.is_anothers else self.betas

    def update_posterior(self, betas: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        return super().update_posterior(betas, covariance) if self.is_anothers else self.betas

    def saw(self, hand: Result, track: int, seconds: float) -> None:
        if self.is_anothers:
            return
        self.watching.see(hand, track, seconds)
        if self.watching.is_another(track):
            super().__init__(self.assets, None, self.population)
            self.is_anothers = True
            return
        self._refresh()
        hand.notes["identity"] = self.watching.note()

    @property
    def description(self) -> str:
        """Whence the shape is known."""
        if self.is_anothers or not self.count:
            return super().description
        return f"{self.count} frames in {self.watching.online.views} views"

    @property
    def length(self) -> HandLength:
        """Of the stretched hand, with its uncertainty."""
        said = super().length
        people, std = said.people, said.std_mm
        measured = bool(self.watching.online.options.cues) or (
            people is not None and std is not None and people.std_mm is not None and std < MEASURED * people.std_mm
        )
        return replace(said, people=None) if measured and not self.is_anothers else said

    def _refresh(self) -> None:
        if not self.is_anothers:
            identity = self.watching.online.identity()
            self.betas, self.covariance, self.count = identity.betas, identity.covariance, identity.n_images


def open_watching(args: argparse.Namespace, tools: PhotoEstimator, path: Path) -> Watching | None:
    """What ``--calibrate_online`` asks for, or its default; None: no identity grows.

    Raises:
        ValueError: options that do not go with it; says why.
    """
    card = tools.estimator.card
    contrary = (
        "--identity is the person's already" if tools.identity is not None
        else f"{card.model} gives a mesh without rotations" if is_mesh_model(card.model)
        else "--shape mean settles the shape" if args.shape == "mean"
        else None
    )  # fmt: skip
    if args.calibrate_online and contrary:
        raise ValueError(f"--calibrate_online: {contrary}; leave one out")
    if contrary or args.calibrate_online is False:
        if unused := sorted(args.given_options & set(OWN_OPTIONS)):
            raise ValueError(f"{', '.join(unused)}: of --calibrate_online, but {contrary or 'it is off'}; leave it out")
        return None
    cues = [parse_known_bone(text) for text in args.known_bone]
    cues += ruler_cues(args.hand_length_mm, args.hand_length_std_mm)
    options = replace(beliefs(tools), cues=tuple(cues), accept_conflict=args.accept_conflict)
    online = OnlineOptions(
        narrow_mm=args.calibrate_until_mm, one_person=args.one_person, doubts_side=args.hand in ("left", "right")
    )
    return Watching(OnlineCalibration(options=options, online=online, assets=tools.assets), path, args.two_shapes)


def beliefs(tools: PhotoEstimator) -> CalibrationOptions:
    """Noise and priors of what gives the hands: a detector's points, or a network's."""
    if tools.weights is not None:
        return default_options(tools.assets, tools.estimator.card.model if tools.population else "", "a video")
    landmarks = None if tools.detector is None else landmarks_of(tools.detector, tools.assets)
    return keypoint_options(tools.assets, shapes_of(tools.assets, tools.population), landmarks=landmarks)
