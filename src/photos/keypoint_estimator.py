"""One hand in one picture from a detector's 2D keypoints alone, without any network of ours.

As `hand_estimator`, in the right-hand convention.
"""

from __future__ import annotations

import numpy as np
import torch

from src.engine.checkpoint import ModelCard
from src.personalization.calibration.population import Population
from src.personalization.fitting.fit import FitOptions, PosePriorOptions, fit_frames
from src.personalization.fitting.from_keypoints import KeypointFitOptions, fit_keypoints
from template.kinematics import JointsModel
from src.personalization.terms.population_pose_prior import habit_prior
from src.photos.estimator import Seen, check_status, rows_of
from src.photos.image import UnusableImage
from src.photos.result import HandResult
from src.photos.shape_filter import ShapeBelief
from template import HandAssets, HandModel


class KeypointEstimator:
    """The hand model fitted to keypoints, the shape included where no identity is known.

    Args:
        assets: right hand in use.
        population: which shapes there are; None: unit normal betas.
    """

    card = ModelCard("hand model fitted to keypoints", recipe="none")

    def __init__(self, assets: HandAssets, population: Population | None = None) -> None:
        self.assets, self.hand = assets, HandModel(assets, dtype=torch.float64)
        self.model, habits = JointsModel(assets), habit_prior(assets)
        self.options = KeypointFitOptions()
        if population is not None:
            mean, covariance = (torch.as_tensor(v) for v in (population.betas_mean, population.betas_covariance))
            self.options = KeypointFitOptions(shape_mean=mean, shape_covariance=covariance)
        prior = PosePriorOptions(torch.inf, torch.inf)
        self.warm = FitOptions(prior=prior, noise=self.options.noise, extra_priors=(habits,), lm=self.options.lm)

    @torch.no_grad()
    def estimate(
        self,
        image: np.ndarray,
        K: np.ndarray,
        box: np.ndarray,
        belief: ShapeBelief,
        seen: Seen | None = None,
        before: HandResult | None = None,
    ) -> HandResult:
        """As `HandEstimator.estimate`, but ``seen`` must be given. With ``before`` the shape stays as it was.

        Raises:
            UnusableImage: no keypoints, or none that a hand would fit.
        """
        if seen is None:
            raise UnusableImage("no usable hand: the detector gave no keypoints")
        K_row, keypoints, confidence = rows_of(K, seen.keypoints, seen.confidence, dtype=torch.float64)
        known = belief.is_known or before is not None
        betas = torch.as_tensor(belief.betas, dtype=torch.float64)[None] if known else None
        if before is not None and before.pose is not None:
            start = rows_of(before.pose, before.transl, dtype=torch.float64)
            found = fit_frames(self.model, start[0], betas, K_row, keypoints, confidence, self.warm, tuple(start))
        else:
            world = None if seen.world is None else rows_of(seen.world, dtype=torch.float64)[0]
            found = fit_keypoints(self.assets, keypoints, K_row, confidence, betas, world, self.options)
            if not known:
                belief.take(found.betas[0].numpy(), found.betas_covariance[0].numpy(), "this image's keypoints alone")
        check_status(found.status, seen)
        posed = self.hand(found.pose, found.betas, found.transl)
        return HandResult(
            image.shape[1], K, np.asarray(box), seen.keypoints, seen.confidence, posed.vertices[0].numpy(),
            posed.joints[0].numpy(), self.assets.faces, float(found.reprojection_px[0]), found.pose[0].numpy(),
            found.transl[0].numpy(), found.betas[0].numpy(), belief.length, notes={"keypoints_from": seen.source},
        )
