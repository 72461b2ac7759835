"""One person's hand shape while frames of it come in: an `Identity` after each, another person's hand kept out."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from src.personalization.calibration.from_keypoints import as_right, keypoint_options, keypoints_of
from src.personalization.calibration.images import evidence_of
from src.personalization.calibration.multi_frame import LAPLACE_SHARE
from src.personalization.calibration.online_frames import FrameFitter
from src.personalization.calibration.population import CalibrationOptions, load_population, shapes_of
from src.personalization.calibration.problem import BETAS
from src.personalization.calibration.view_evidence import Evidence, Views, chance_of, no_evidence, parts_of
from src.personalization.calibration.views import SAME_VIEW, SHARED
from src.personalization.estimates.sides import ENOUGH, side_conflict
from src.personalization.solver.levenberg_marquardt import LMOptions
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.frame_problem import ShapePrior
from src.personalization.terms.hand_size import LengthCue, cue_conflict, length_gradient, ruler_cues
from src.personalization.terms.shape_terms import offset_terms, shape_terms
from template import HandAssets, right_hand
from template.kinematics import joints_model
from utils.artifacts import Identity
from utils.cameras.intrinsics import checked_intrinsics

logger = logging.getLogger(__name__)

#: Steps of the key frames' fit when they are linearised again.
AGAIN = LMOptions(max_steps=3)
#: The betas have settled when they move less than this, in standard deviations.
SETTLED = 0.01


@dataclass(frozen=True)
class OnlineOptions:
    """How a video's frames count. The numbers were measured on the people of seed 1000 (docs/video.md).

    Attributes:
        same_view: m, mean distance of joints within which a frame shows a view again; see `view_evidence.Views`.
        shared: part of the errors that all views of a video share.
        kept: key frames that are kept and linearised again.
        probation: frames of a new track before it is judged.
        beside: instants with a second hand of one side that make it another person's: sides are named wrongly at first.
        refused: how often one person's track looks, by chance, as different as one that is refused.
        least_views, narrow_mm: an identity is ready with so many views and a hand length whose 95% interval is no
            longer than that.
        one_person: all tracks are one person's, whatever is seen.
        doubts_side: the hand's side was stated, not seen, and is asked of the views (`sides.side_conflict`).
    """

    same_view: float = SAME_VIEW
    shared: float = SHARED
    kept: int = 32
    probation: int = 10
    beside: int = 6
    refused: float = 1e-3
    least_views: int = 3
    narrow_mm: float = 40.0
    one_person: bool = False
    doubts_side: bool = True


class OnlineCalibration:
    """One person's hand, ever better known.

    >>> online = OnlineCalibration(K=K, hand_length_mm=183)
    >>> for keypoints, confidence in frames:  # (21,2) px, (21,)
    ...     identity = online.add(keypoints, confidence)
    ...     identity.length_mm, identity.interval_mm, online.is_ready
    >>> online.settle().save("me.json")

    Every frame is fitted with the betas so far; what it then says of them, its pose and place integrated out, is added
    once (`view_evidence.solve_frames`). Frames of one view are averaged. Some key frames are kept and fitted
    again as the betas change, so that the end is the calibration of them all at once. Where a person's own points are
    asked for they are solved for with the betas, and Laplace's correction is made at the key frames (see
    `multi_frame.calibrate_frames`).

    Args:
        K: (3,3) px, of frames that bring none.
        hand_length_mm, hand_length_std_mm (3): ruler, wrist joint to middle fingertip of the stretched hand, mm.
        prior: population file; None: the shipped one where it fits.
        options: noise, priors and cues of the frames' source; None: of a detector's keypoints, with those above.
            ``error_correlation`` (1 where ``errors_repeat``) counts where it is more than ``online.shared``. No prior
            on the depth.
        online: how frames count.

    Attributes:
        person: (S,) betas, and where they are solved for offsets (m) of their points, now; covariance: (S,S).
        strangers: tracks of other people's hands, and why. skipped: frames that could not be used, by reason.
    """

    def __init__(
        self,
        K: Any = None,
        *,
        hand_length_mm: float | None = None,
        hand_length_std_mm: float | None = None,
        prior: str | os.PathLike | None = None,
        options: CalibrationOptions | None = None,
        online: OnlineOptions = OnlineOptions(),
        assets: HandAssets | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.assets = right_hand(assets)
        if options is None:
            people = None if prior is None else load_population(prior, self.assets.hash)
            options = keypoint_options(self.assets, shapes_of(self.assets, people), device)
        elif prior is not None:
            raise CalibrationError("prior and options both say what people are like; give one")
        if options.depth_mean is not None:
            raise CalibrationError("options have a prior on the depth; calibrate a data set's images all at once")
        cues = (*options.cues, *ruler_cues(hand_length_mm, hand_length_std_mm))
        # A frame starts from the one before it, which says nothing of its own.
        options = replace(options, cues=cues, flat=None)
        self.options, self.online = options, online
        self.K = None if K is None else checked_intrinsics(K, "of all frames", one=True)
        self.shared = 1.0 if options.errors_repeat else max(options.error_correlation, online.shared)
        self.model = joints_model(self.assets, options.landmarks, device)
        self.strangers: dict[int, str] = {}
        self.skipped: dict[str, int] = {}
        self._frames = FrameFitter(self.assets, self.model, options)
        self._sides: set[str] = set()
        self._image_ids: list[int] = []  # of the first frame: files that share it are of one video
        self._own, self._others = Views(online.same_view, online.kept), dict[int, Views]()
        self._same: set[int] = set()
        self._shown: dict[int, tuple[float, str]] = {}  # when, and which hand
        self._beside: dict[int, int] = {}
        self._looked_at: list[tuple[np.ndarray, np.ndarray, np.ndarray, str]] = []
        self._ask_at, self._other_side = ENOUGH, None
        people = options.population.shape_prior.to(self.model.device, self.model.dtype)
        self._offset_share, size = None, 10
        if (share := options.own_share) is not None:
            self._offset_share, size = torch.as_tensor(share).to(people.mean)[self.model.from_standard], 73
        self.person = people.mean.new_zeros(size)
        self.person[BETAS] = people.mean
        self._people = self._of_betas(Evidence(people.precision, people.precision @ people.mean))
        self.person, self.covariance = self._solve(options.cues)

    @torch.no_grad()
    def add(
        self,
        keypoints: Any,
        confidence: Any = None,
        *,
        K: Any = None,
        pose: Any = None,
        betas: Any = None,
        hand: str = "right",
        track: int = 0,
        instant: float | None = None,
    ) -> Identity:
        """Take in one more frame.

        Args:
            keypoints: (21,2) px, standard order; confidence: (21,) in [0,1], zero where unseen; None: all one.
            K: (3,3) px.
            pose: (16,3,3) of a network, or to start from where ``options`` trust none; betas: (10,) that it predicted.
                Both as of a right hand. None: found from the keypoints, starting from the track's frame before.
            hand: of which hand keypoints and K are.
            track: number of a hand that is followed. The first one's person is calibrated; others are that person's
                too, for all that is known, once their first frames agree.
            instant: when; two hands of one side at the same instants are two people's.

        Returns:
            The identity now. A frame that cannot be used changes nothing and is counted in ``skipped``.

        Raises:
            CalibrationError: no K, or arrays of other shapes.
        """
        if hand not in ("left", "right"):
            raise CalibrationError(f"hand is {hand!r}; it must be 'left' or 'right'")
        if track in self.strangers:
            return self.identity()
        seen = keypoints, confidence, self.K if K is None else K
        found = self._frames.view(*seen, pose, betas, hand == "left", track, self.person)
        if isinstance(found, str):
            self.skipped[found] = self.skipped.get(found, 0) + 1
            return self.identity()
        if not self._same or self.online.one_person:
            self._same.add(track)
        self._tell_apart(track, hand, instant)
        if track in self._same:
            self._sides.add(hand)
            trust = np.ones(21) if confidence is None else np.asarray(confidence, np.float64)
            points = np.asarray(keypoints, np.float64)
            if not self._image_ids:
                self._image_ids = as_right(points[None], trust[None], np.array([hand == "left"]))[1].tolist()
            if self._own.add(found):
                if len(self._looked_at) < self.online.kept:
                    self._looked_at.append((points, np.asarray(seen[2], np.float64), trust, hand))
                self.settle(1)
            else:
                self.person, self.covariance = self._solve(self.options.cues)
        elif track not in self.strangers:
            views = self._others.setdefault(track, Views(self.online.same_view, self.online.kept))
            new = views.add(found)
            if views.frames == self.online.probation or (new and views.frames > self.online.probation):
                self._judge(track, hand)
        return self.identity()

    def settle(self, rounds: int = 20) -> Identity:
        """Fit the key frames and the betas in turn until they agree, or so many times; the identity then."""
        for _ in range(rounds):
            before, scale = self.person, self.covariance.diagonal().sqrt()
            again = LAPLACE_SHARE if rounds > 1 else 0.0  # which takes twenty times as long
            self._own.linearise(self.model, self.person, AGAIN, bool(self.options.laplace), again)
            self.person, self.covariance = self._solve(self.options.cues)
            if float(((self.person - before) / scale).abs().max()) < SETTLED:
                break
        if rounds > 1:
            self._ask_at = ENOUGH
            if (doubt := self._doubted_side()) is not None:
                logger.warning("%s", doubt)
        return self.identity()

    @property
    def betas(self) -> torch.Tensor:
        """(10,) so far."""
        return self.person[BETAS]

    @property
    def views(self) -> int:
        """Different views of the person so far."""
        return len(self._own)

    @property
    def is_ready(self) -> bool:
        """Narrow enough to be used elsewhere, and no cue contradicts the frames."""
        interval = self.identity().interval_mm
        narrow = interval is not None and interval[1] - interval[0] <= self.online.narrow_mm
        return len(self._own) >= self.online.least_views and narrow and self.conflict() is None

    def conflict(self, most: float = 4.0) -> str | None:
        """What the frames say against the hand's side, or against a measured length, where they are ``most`` standard
        deviations apart."""
        if (doubt := self._doubted_side()) is not None:
            return doubt
        for cue in self.options.cues:
            others = tuple(other for other in self.options.cues if other is not cue)
            person, covariance = self._solve(others)
            length, std, apart = cue_conflict(self.model, person[BETAS], covariance[BETAS, BETAS], cue)
            if abs(apart) > most and not self.options.accept_conflict:
                return (
                    f"{cue.name} was measured as {1000 * cue.length:.1f} ± {1000 * cue.std:.1f} mm, but the frames and "
                    f"the prior say {length:.1f} ± {std:.1f} mm"
                )
        return None

    def _doubted_side(self) -> str | None:
        """See `sides.side_conflict`; asked once there are enough views, and whenever there are twice as many."""
        if self.online.doubts_side and not self.options.accept_conflict and len(self._own) >= self._ask_at:
            self._ask_at, self._other_side = 2 * len(self._own), None
            for hand in ("right", "left"):
                rows = [row[:3] for row in self._looked_at if row[3] == hand]
                if len(rows) >= ENOUGH and self._other_side is None:
                    hands = keypoints_of(*(np.stack(part) for part in zip(*rows, strict=True)), hand)
                    self._other_side = side_conflict(hands, self.assets, self.options)
        return self._other_side

    def identity(self) -> Identity:
        """What is known now; it can be merged with others (`merging.merge_identities`)."""
        (betas, offsets), covariance = parts_of(self.person), self.covariance[BETAS, BETAS]
        length, slope = length_gradient(self.model, betas[None], "hand")
        landmarks = {}
        if offsets is not None:
            landmarks[self.options.landmarks.name] = offsets[self.model.to_standard].cpu().numpy()
        return Identity(
            betas=betas.cpu().numpy(),
            covariance=covariance.cpu().numpy(),
            hand_name=self.assets.name,
            hand_hash=self.assets.hash,
            hand_length_mm=1000 * float(length[0]),
            hand_length_std_mm=1000 * float(slope[0] @ covariance @ slope[0]) ** 0.5,
            side=next(iter(self._sides)) if len(self._sides) == 1 else "both" if self._sides else "right",
            method="online",
            n_images=self._own.frames,
            image_ids=list(self._image_ids),
            landmarks=landmarks,
            **evidence_of(self.options, self._told(), repeats=self._repeats()),
        )

    def _repeats(self) -> dict[str, Any]:
        """As `views.Repeats.describe` has it."""
        views, everywhere = len(self._own), self.options.in_common[0]
        worth = views / (1 + self.shared * max(views - 1, 0))
        return {"views": views, "videos": 1, "in_common": [everywhere, self.shared], "worth": round(worth, 2)}

    def _told(self) -> tuple[np.ndarray, float] | None:
        """Mean (10,) of the betas that a network predicted, and how many images it is worth."""
        told = None if self.options.population.network is None else self._own.predicted(self.shared)
        return told and (told[0].cpu().numpy(), told[1])

    def _of_betas(self, found: Evidence) -> Evidence:
        """What says something of the betas alone, as evidence of all that is the person's."""
        whole = no_evidence(self.person)
        whole.precision[BETAS, BETAS], whole.pull[BETAS] = found.precision, found.pull
        return whole

    def _solve(self, cues: tuple[LengthCue, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """What is the person's (S,) and its covariance that all evidence together asks for."""
        known, told = self._people + self._own.evidence(self.shared, self.person), self._told()
        if told is not None:
            parts = self.options.population.network.information(*told)
            known = known + self._of_betas(Evidence(*(torch.as_tensor(part).to(self.person) for part in parts)))
        person, share = self.person, self._offset_share
        nothing = ShapePrior(person.new_zeros(10), person.new_zeros(10, 10))
        for _ in range(4 if cues or share is not None else 1):  # lengths are not quite linear
            gradient, hessian = known.precision @ person - known.pull, known.precision.clone()
            betas, offsets = parts_of(person)
            _, slope, curvature = shape_terms(self.model, nothing, cues, betas[None])
            gradient[BETAS] += slope[0]
            hessian[BETAS, BETAS] += curvature[0]
            if share is not None and offsets is not None:
                _, slope, curvature = offset_terms(self.model, share, betas[None], offsets[None])
                gradient, hessian = gradient + slope[0], hessian + curvature[0]
            person = person - torch.linalg.solve(hessian, gradient)
        covariance = torch.linalg.inv(hessian)
        return person, (covariance + covariance.mT) / 2

    def _tell_apart(self, track: int, hand: str, instant: float | None) -> None:
        """A person has one hand of a side: whose is seen beside the person's own is somebody else's."""
        if instant is None:
            return
        self._shown[track] = (instant, hand)
        for other, shown in self._shown.items():
            if other != track and shown == (instant, hand) and (track in self._same) != (other in self._same):
                second = track if other in self._same else other
                self._beside[second] = self._beside.get(second, 0) + 1
                if self._beside[second] >= self.online.beside:
                    self._refuse(second, f"two {hand} hands are seen at once")

    def _refuse(self, track: int, reason: str) -> None:
        if track not in self.strangers:
            logger.warning("track %d is another person's hand and is not mixed in: %s", track, reason)
        self.strangers[track] = reason
        self._others.pop(track, None)

    def _judge(self, track: int, hand: str) -> None:
        """Does the person's shape explain a track? If so its views are the person's."""
        views = self._others[track]
        views.linearise(self.model, self.person, AGAIN, bool(self.options.laplace))
        # Errors that all views share are the same for both, and do not make hands look different.
        chance = chance_of(views.evidence(0.0, self.person), self.person, self.covariance)
        if chance < self.online.refused:
            reason = f"one person's hand would look so different in {100 * chance:.2g}% of cases"
            return self._refuse(track, reason)
        self._same.add(track)
        self._sides.add(hand)
        for view in self._others.pop(track).all:
            self._own.add(view)
        self.settle(1)
