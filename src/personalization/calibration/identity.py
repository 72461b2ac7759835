"""From predictions of people's images to their identities: average of predicted shapes, or multi-frame calibration."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from src.personalization.calibration.images import AVERAGES, Images, ViewGroups, choose_images
from src.personalization.calibration.multi_frame import image_information, solve_person
from src.personalization.calibration.population import CalibrationOptions, default_options
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import HAND_RANGE, lengths_mm
from template import HandAssets
from template.kinematics import JointsModel, joints_model
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)

METHODS = (*AVERAGES, "multi_frame")
#: What a method was called before.
ALIASES = {"joint": "multi_frame"}


def calibrate_predictions(
    predictions: Predictions,
    assets: HandAssets,
    options: CalibrationOptions | None = None,
    *,
    wrist_depth: np.ndarray | None = None,
    views: ViewGroups | None = None,
    subject: int | None = None,
    device: torch.device | str = "cpu",
    **choices: Any,
) -> dict[int, Identity]:
    """One identity of every subject (or of one subject) in the predictions, by subject number.

    Args:
        predictions: with betas; for ``multi_frame`` with poses and 2D keypoints (`pairing.pair_keypoints`).
        assets: the hand model that the predictions were made with.
        options: priors, noise and measured lengths of ``multi_frame``; None: `default_options`.
        wrist_depth: (N,) m measured depth of the wrist in each row, NaN where unknown.
        views: which rows are views of one instant, and where their cameras stand; None: every row alone.
        choices: method, num_images, select, seed, top_k, temperature and created_by of `calibrate_person`.

    Raises:
        CalibrationError, ValueError: see `calibrate_person`. HandMismatchError: another hand model.
    """
    predictions.check_hand(assets)
    if options is None:
        options = default_options(assets, predictions.model_name, predictions.dataset)
    model = joints_model(assets, options.landmarks, device)
    people = Images(predictions, wrist_depth, views).people(subject, model, options.same_video)
    return {number: calibrate_person(own, number, assets, model, options, **choices) for number, own in people.items()}


def calibrate_person(
    own: Images,
    subject: int,
    assets: HandAssets,
    model: JointsModel,
    options: CalibrationOptions,
    *,
    method: str = "multi_frame",
    num_images: int | None = None,
    select: str = "random",
    seed: int = 0,
    top_k: int = 10,
    temperature: float = 1.0,
    created_by: str = "",
) -> Identity:
    """The identity of one person: choose images, solve, package.

    Args:
        own: that person's images, each once (`Images.people`).
        model: of ``assets`` and the options' landmarks.
        method: one of `METHODS`, or an alias.
        num_images, select, seed: images to use (None: all), see `images.choose_images`; where there are fewer,
            all are used, and the identity says how many.
        top_k, temperature: see `images.average_weights`.

    Raises:
        CalibrationError: what a method needs is missing, or cannot be. ValueError: an unknown method.
    """
    method = ALIASES.get(method, method)
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; choose one of {METHODS}")
    frames, rows = method == "multi_frame", own.predictions
    if frames and (rows.pose is None or rows.keypoints_2d is None):
        raise CalibrationError(f"{rows.source} lacks poses or 2D keypoints; multi-frame calibration needs both")
    there = len(own.predictions)
    information, prior = None, None
    if select == "informative" and frames and own.views is None:
        given = (None if value is None else value[0] for value in own.tensors[:5])
        information = image_information(model, *given, options).cpu().numpy()
        prior = options.population.shape_prior.precision.numpy()
    instant = own.views.instant if own.views is not None and frames else None
    wanted, confidence = there if num_images is None else num_images, rows.confidence
    own = own.rows(choose_images(there, wanted, select, seed, confidence, information, prior, instant))
    if not frames:
        betas, covariance, used, evidence = own.average_shape(method, top_k, temperature)
    else:
        repeats, place = own.repeats(model, options.same_video)
        counts = repeats.weights(options.video_correlation)[place]
        assumed = repeats.describe(subject, *options.in_common, bool(options.same_video))
        evidence = own.evidence(options, counts, repeats=assumed)
        betas, covariance, used, more = solve_person(model, own, repeats, counts, options, subject)
        evidence = {**evidence, **more, "evidence": evidence["evidence"] | more["evidence"]}
    length, std = lengths_mm(assets, betas, covariance, ("hand",))["hand"]
    low, high = HAND_RANGE
    if not 1000 * low < length < 1000 * high:
        raise CalibrationError(
            f"subject {subject}: the hand came out {length:.1f} mm long, which no hand is ({1000 * low:g} to "
            f"{1000 * high:g}); check keypoints and K of {rows.source}, and what the options say"
        )
    left = own.predictions.is_left[used]
    return Identity(
        betas=betas,
        covariance=covariance,
        hand_name=assets.name,
        hand_hash=assets.hash,
        hand_length_mm=length,
        hand_length_std_mm=std,
        side="left" if left.all() else "both" if left.any() else "right",
        method=method,
        n_images=int(used.sum()),
        image_ids=own.predictions.image_id[used].tolist(),
        images_of=own.predictions.images_of,
        subject_id=subject,
        created_by=created_by,
        **evidence,
    )
