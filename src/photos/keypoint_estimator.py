"""One hand in one picture from a detector's 2D keypoints alone, without any network of ours.

As `estimator.HandEstimator`, in the right-hand convention.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from src.engine.checkpoint import ModelCard
from src.personalization.calibration.population import Population
from src.personalization.fitting.fit import FitResult, fit_frames
from src.personalization.fitting.from_keypoints import (
    KeypointFit,
    KeypointFitOptions,
    fit_keypoints,
    turned_to_camera,
    world_direction,
)
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.solver.status import usable
from src.photos.detector.refusal import (
    DEPTH_RANGE,
    MAX_MISFIT,
    MIN_SIDE,
    SURE_SIDE,
    check_agreement,
    check_misfit,
    check_side,
    check_size,
    side_probability,
)
from src.photos.estimator import HandInPicture, Keypoints, fitted_result, rows_of
from src.photos.image import UnusableImage
from src.photos.result import Result
from template import HandAssets, HandModel
from template.kinematics import joints_model
from utils.artifacts import Identity

#: Of a followed hand every so many frames say what they make of the shape: their neighbours would say the same.
SHAPE_EVERY = 10
Tools = TypeVar("Tools", bound=Any)


class KeypointEstimator:
    """The hand model fitted to keypoints, the shape included where no identity is known.

    Args:
        population: which shapes there are; None: unit normal betas.
        landmarks: whose points the keypoints are; None: the hand's own joints and tips.
        max_misfit, min_side: of a hand that is believed, see `refusal`.
        flat: whether a hand may be one that is shown flat. Not in a video: its frames start from the ones before, and
            are told together once it is over (`fitting.shown_flat`).
        more: of `KeypointFitOptions`.
    """

    card = ModelCard("hand model fitted to keypoints", recipe="none")

    def __init__(
        self,
        assets: HandAssets,
        population: Population | None = None,
        landmarks: LandmarkModel | None = None,
        max_misfit: float = MAX_MISFIT,
        min_side: float = MIN_SIDE,
        flat: bool = True,
        **more: Any,
    ) -> None:
        self.assets, self.hand = assets, HandModel(assets, dtype=torch.float64)
        self.max_misfit, self.min_side = max_misfit, min_side
        self.options = KeypointFitOptions.of_source(landmarks, people=population, flat=flat, **more)
        self.joints_model = joints_model(assets, landmarks)
        self.frame_options = replace(self.options, flat=True).frame_options(assets)
        self._following = replace(self.frame_options, flat=None)
        unsaid = replace(self.options, prediction=None)
        self._following_unsaid = replace(unsaid.frame_options(assets), flat=None)
        self._more = more
        self._anybodys, self._persons = self, dict[bytes, KeypointEstimator]()

    def of_person(self, identity: Identity | None) -> KeypointEstimator:
        """The same for somebody whose own points were calibrated, if this source's were."""
        base = self._anybodys
        landmarks = None if base.options.landmarks is None else base.options.landmarks.of_person(identity)
        if landmarks is base.options.landmarks:
            return base
        key = landmarks.offsets.tobytes()
        if key not in base._persons:
            limits = base.max_misfit, base.min_side, base.options.flat
            base._persons[key] = KeypointEstimator(base.assets, base.options.people, landmarks, *limits, **base._more)
            base._persons[key]._anybodys = base
        return base._persons[key]

    @torch.no_grad()
    def estimate(self, seen: HandInPicture) -> Result:
        """See `Estimator.estimate`, but keypoints must be given.

        Where no identity is known, a frame on its own gives shape and pose. Of a followed hand every `SHAPE_EVERY`-th
        frame does so for the shape's sake; each is posed with the shape of all so far.

        Raises:
            UnusableImage: no keypoints, or none that a hand would fit, or the other hand fits them better.
        """
        keypoints, shape, before = seen.keypoints, seen.shape, seen.before
        if keypoints is None:
            raise UnusableImage("no usable hand: the detector gave no keypoints")
        check_size(keypoints)
        check_agreement(keypoints)
        followed = before is not None and before.pose is not None
        frame = int(before.notes.get("followed_frames", 0)) + 1 if followed else 0
        fit: FitResult | None = None
        gain = 0.0
        if not shape.is_known and frame % SHAPE_EVERY == 0:
            fit, gain = self._fit(keypoints, seen.K, None, with_other_side=not followed and shape.count == 0)
            if bool(usable(fit.status)[0]) and DEPTH_RANGE[0] < float(fit.transl[0, 2]) < DEPTH_RANGE[1]:
                shape.update_posterior(fit.betas[0].numpy(), fit.betas_covariance[0].numpy())
        betas = torch.as_tensor(shape.betas, dtype=torch.float64)[None]
        K_row, points, confidence, world, pose = _rows(keypoints, seen.K)
        believed = pose is not None and self.options.prediction is not None
        said = turned_to_camera(pose, K_row, points) if believed else None
        if followed:
            start = tuple(rows_of(before.pose, before.transl, dtype=torch.float64))
            given = start[0] if said is None else said, betas, K_row, points, confidence
            guess = world_direction(world, K_row, points)
            options = self._following_unsaid if said is None else self._following
            fit = fit_frames(self.joints_model, *given, options, start, guess)
        elif fit is None or not np.allclose(fit.betas[0], shape.betas, atol=1e-4):  # others' frames, or a ruler, count
            fit, gain = self._fit(keypoints, seen.K, betas)
        result = fitted_result(seen, keypoints, self.hand, fit, {"followed_frames": frame})
        sure = {"misfit": check_misfit(result.reprojection_px, keypoints.size, self.max_misfit)}
        if keypoints.side_score is not None:
            sure["side"] = check_side(side_probability(keypoints.side_score, gain), least=self.min_side)
        if isinstance(fit, KeypointFit):
            depth, length = float(fit.transl[0, 2]), shape.length
            # Of a given shape the fit takes the size for certain; how unsure it is, as the distance is.
            given = not fit.betas_covariance.any() and length.std_mm is not None
            of_size = depth * length.std_mm / length.mm if given else 0.0
            sure["distance_std_m"] = (float(fit.wrist_covariance[0, 2, 2]) + of_size**2) ** 0.5
        return replace(result, certainty=sure, predicted_pose=None if said is None else said[0].float().numpy())

    def _fit(
        self, keypoints: Keypoints, K: np.ndarray, betas: torch.Tensor | None, with_other_side: bool = True
    ) -> tuple[KeypointFit, float]:
        """`fit_keypoints`, and how much lower its cost is than the other hand's, this one's in the mirror: zero where
        that is not asked for or tells nothing. A right hand shown flat is a left one from the other side: only usual
        poses are compared, both together: of one hand the calls are the time."""
        score, own = keypoints.side_score, _rows(keypoints, K)
        gain = 0.0
        # Else the other hand fits as well: of our own detector's signs no more are right, with depths or without.
        tells = keypoints.world is not None and not keypoints.only_depths
        if with_other_side and score is not None and score < SURE_SIDE and tells:
            flip = np.array([-1.0, 1.0, 1.0])
            other = replace(keypoints, points=keypoints.points * flip[:2], world=keypoints.world * flip)
            pairs = zip(own, _rows(other, flip[:, None] * K * flip), strict=True)
            both = [None if pair[0] is None else torch.cat(pair) for pair in pairs]
            fits = self._fitted(both, betas, replace(self.options, flat=False, prediction=None))
            cost, other_cost = torch.where(usable(fits.status), fits.cost, torch.inf).tolist()
            gain = other_cost - cost if cost < torch.inf else 0.0
        return self._fitted(own, betas, self.options), gain

    def _fitted(self, rows: list[torch.Tensor], betas: torch.Tensor | None, options: KeypointFitOptions) -> KeypointFit:
        """Of rows as `_rows` gives them."""
        K, points, confidence, world, pose = rows
        return fit_keypoints(self.assets, points, K, confidence, betas, world, options, pose=pose)


def for_person(tools: Tools, identity: Identity | None) -> Tools:
    """A `PhotoEstimator` with the person's shape, and with where a detector's points lie on that hand."""
    fits = {name: getattr(tools, name) for name in ("estimator", "alone")}
    own = {name: fit.of_person(identity) for name, fit in fits.items() if isinstance(fit, KeypointEstimator)}
    return replace(tools, identity=identity, **own)


def _rows(keypoints: Keypoints, K: np.ndarray) -> list[torch.Tensor | None]:
    """K, points, confidence, 3D points and pose as batches of one, float64; None where there are none."""
    given = K, keypoints.points, keypoints.confidence, keypoints.world, keypoints.pose
    return [None if one is None else rows_of(one, dtype=torch.float64)[0] for one in given]
