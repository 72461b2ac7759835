"""Images of a person: which repeat each other, which to calibrate from, and how much each counts in an average."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from src.personalization.calibration.population import CalibrationOptions
from src.personalization.calibration.views import SAME_PICTURE, SAME_VIEW, Repeats, videos_of, views_of
from src.personalization.solver.status import CalibrationError
from template.kinematics import JointsModel, posed_points
from utils.artifacts import Predictions

logger = logging.getLogger(__name__)

#: The paper's calibration: many predicted shapes of one person, averaged.
AVERAGES = ("mean", "median", "top_k", "confidence")
#: Data sets that do not tell people apart (docs/facts.md).
NAMELESS = ("freihand", "ho3d")
SELECTIONS = ("random", "confidence", "informative")


@dataclass(frozen=True)
class ViewGroups:
    """Which rows belong together.

    Attributes:
        instant: (N,) int, equal for views of one instant.
        camera_to_world: (N,4,4) m, of each row's camera, right-hand convention (mirrored for left hands:
            `mirror_extrinsics`); one world for all views of an instant.
    """

    instant: np.ndarray
    camera_to_world: np.ndarray

    def rows(self, rows: np.ndarray) -> ViewGroups:
        return ViewGroups(self.instant[rows], self.camera_to_world[rows])


@dataclass(frozen=True)
class Images:
    """Images of one person: predictions, measured wrist depths (N,) m (NaN: unknown), where the cameras stand, and the
    number of the video (N,) that each is of."""

    predictions: Predictions
    wrist_depth: np.ndarray | None = None
    views: ViewGroups | None = None
    video: np.ndarray | None = None

    def rows(self, rows: np.ndarray) -> Images:
        depth, video = (None if value is None else value[rows] for value in (self.wrist_depth, self.video))
        views = None if self.views is None else self.views.rows(rows)
        return Images(self.predictions.select(rows), depth, views, video)

    def people(self, subject: int | None, model: JointsModel, same: bool | None) -> dict[int, Images]:
        """The images of each subject, or of the one asked for (`rows_by_subject`), each once (`of_person`), and the
        videos that they are of (`in_videos`) where poses tell."""
        found, own = self.predictions, self
        if found.readable is not None and not found.readable.all():  # what a network said of black is no evidence
            logger.warning("%s: %d pictures could not be read, and do not count", found.source, (~found.readable).sum())
            own = self.rows(np.flatnonzero(found.readable))
        people = {number: own.of_person(rows) for number, rows in rows_by_subject(own.predictions, subject).items()}
        if found.pose is None:
            return people
        return {number: own.in_videos(model, same) for number, own in people.items()}

    def of_person(self, rows: np.ndarray) -> Images:
        """One person's, without those whose pose, shape and keypoints are another's to the bit: the same image."""
        own = self.rows(rows)
        found = own.predictions
        arrays = (found.pose, found.betas, found.keypoints_2d, found.confidence)
        content = [array.reshape(len(found), -1).astype(np.float32) for array in arrays if array is not None]
        if not content:
            return own
        _, first = np.unique(np.concatenate(content, axis=1), axis=0, return_index=True)
        if len(first) == len(found):
            return own
        copies = np.delete(found.image_id, first)
        logger.warning("%d images are copies of others (e.g. image %d) and do not count again", len(copies), copies[0])
        return own.rows(np.sort(first))

    @property
    def tensors(self) -> list[Any]:
        """As one person's, a dimension of 1 before each: pose (N,16,3,3), betas (N,10), K (N,3,3) px, keypoints
        (N,21,2) px, and, or None, their confidence (N,21) and the wrists' depths (N,) m."""
        own = self.predictions
        betas = np.zeros((len(own), 10)) if own.betas is None else own.betas
        given = (own.pose, betas, own.K, own.keypoints_2d, own.keypoint_confidence, self.wrist_depth)
        return [None if value is None else torch.as_tensor(value)[None] for value in given]

    def in_videos(self, model: JointsModel, same: bool | None) -> Images:
        """With the number of the video that each is of: told from the hands (`videos_of`), or ``same`` as stated."""
        own = self.predictions
        if same is not None:
            return replace(self, video=np.zeros(len(own)) if same else np.arange(len(own)))
        first, place, points = self._hands(model)
        focal = own.K[first, 0, 0].round(2)
        if self.views is not None or 2 * len(np.unique(focal)) > len(focal):  # crops and zooms have one each
            focal[:] = 0
        capture = np.column_stack([own.sequence_id[first], focal])
        capture = np.unique(capture, axis=0, return_inverse=True)[1].reshape(-1)
        return replace(self, video=videos_of(points, capture)[place])

    def repeats(self, model: JointsModel, same: bool | None) -> tuple[Repeats, np.ndarray]:
        """How the images (or instants) repeat each other, and which of them each row is; ``same`` as stated."""
        own = self if self.video is not None else self.in_videos(model, same)
        first, place, points = own._hands(model)
        _, which, count = np.unique(own.video[first], return_inverse=True, return_counts=True)
        near = np.where(count[which] > 1, SAME_VIEW, SAME_PICTURE)
        view = np.arange(len(first)) if same is False else views_of(points, near)
        return Repeats(view, own.video[first]), place

    def _hands(self, model: JointsModel) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
        """The first image of each instant (M,), which instant each is of (N,), and in the former mean hands posed as
        predicted, about the wrist (M,21,3) m; of several cameras in the world's axes."""
        instant = np.arange(len(self.predictions)) if self.views is None else self.views.instant
        _, first, place = np.unique(instant, return_index=True, return_inverse=True)
        points = mean_hand_points(model, torch.as_tensor(self.predictions.pose[first]))
        if self.views is not None:
            points = points @ torch.as_tensor(self.views.camera_to_world[first, :3, :3]).to(points).mT
        return first, place.reshape(-1), points

    @property
    def predicted_betas(self) -> np.ndarray | None:
        """(N,10) float64 that the network found by itself: an identity-aware network repeats those that it was told."""
        if self.predictions.betas is None or self.predictions.model_name.endswith("_identity"):
            return None
        return self.predictions.betas.astype(np.float64)

    def evidence(self, options: CalibrationOptions, counts: np.ndarray, **more: Any) -> dict[str, Any]:
        """`evidence_of` them and ``more``; predicted betas count for as many images as ``counts`` (N,) says."""
        predicted, told = self.predicted_betas, None
        if predicted is not None and options.population.network is not None:
            told = np.average(predicted, axis=0, weights=counts), float(counts.sum())
        depth = self.wrist_depth is not None and bool(np.isfinite(self.wrist_depth).any())
        return evidence_of(options, told, *["cameras"] * (self.views is not None), *["depth"] * depth, **more)

    def average_shape(
        self, method: str, top_k: int, temperature: float
    ) -> tuple[np.ndarray, None, np.ndarray, dict[str, Any]]:
        """Average (10,) of the predicted betas, one of `AVERAGES`, without a covariance; mask (N,) of the images that
        count in it; and what an identity's scale then rests on.

        Raises:
            CalibrationError: there are none that a network found by itself. Others: see `average_weights`.
        """
        betas, own = self.predicted_betas, self.predictions
        if betas is None:
            raise CalibrationError(
                f"{own.source} holds no betas that a network found by itself; predict with mano_baseline or "
                "mano_baseline_conf"
            )
        weights = average_weights(len(own), method, own.confidence, top_k, temperature)
        mean = np.median(betas, axis=0) if method == "median" else weights @ betas
        return mean, None, weights > 0, {"scale_evidence": "network"}


def evidence_of(
    options: CalibrationOptions, told: tuple[np.ndarray, float] | None, *others: str, **more: Any
) -> dict[str, Any]:
    """What an `Identity` made with ``options`` says of its ``scale_evidence`` and ``evidence``.

    Args:
        told: mean (10,) of the betas that a network predicted, and of how many images; others: what else tells sizes;
            more: further evidence.
    """
    evidence: dict[str, Any] = {"prior": options.population.hash, "errors_repeat": options.errors_repeat}
    if told is not None:
        evidence["network"] = {"images": told[1], "betas": told[0].round(6).tolist()}
    if options.cues:
        evidence["cues"] = [[cue.name, 1000 * cue.length, 1000 * cue.std] for cue in options.cues]
    scale = [*("ruler" if cue.name == "hand" else "known bone" for cue in options.cues), *others]
    scale = scale or ["prior", *(["network"] if told is not None else [])]
    return {"scale_evidence": " + ".join(dict.fromkeys(scale)), "evidence": evidence | more}


def mean_hand_points(model: JointsModel, pose: torch.Tensor) -> torch.Tensor:
    """Joints (N,21,3) m of a mean hand about the wrist, camera axes, of rotations (N,16,3,3)."""
    mean = model.rest_points(torch.zeros(1, 10, dtype=model.dtype, device=model.device))
    pose = pose.to(model.device, model.dtype)
    return posed_points(model, pose, mean.expand(len(pose), -1, -1)).points


def rows_by_subject(predictions: Predictions, subject: int | None = None) -> dict[int, np.ndarray]:
    """Row numbers (M,) of each subject (or of the one asked for), in file order.

    Raises:
        CalibrationError: if there is no row of the subject asked for, or none at all; of a data set that does not tell
            people apart, unless ``subject`` says that they are one.
    """
    if subject is None and predictions.dataset in NAMELESS and len(predictions):
        raise CalibrationError(
            f"{predictions.source}: {predictions.dataset} does not say who is in its pictures, so they are hardly one "
            f"person's; if they are, give --subject {predictions.subject_id[0]}"
        )
    present = np.unique(predictions.subject_id)
    if subject is not None and subject not in present:
        raise CalibrationError(f"{predictions.source} has no image of subject {subject}; it has {present.tolist()}")
    if len(present) == 0:
        raise CalibrationError(f"{predictions.source} is empty; there is nothing to calibrate from")
    wanted = present if subject is None else [subject]
    return {int(number): np.flatnonzero(predictions.subject_id == number) for number in wanted}


def choose_images(
    n: int,
    wanted: int,
    how: str = "random",
    seed: int = 0,
    confidence: np.ndarray | None = None,
    information: np.ndarray | None = None,
    prior_precision: np.ndarray | None = None,
    instant: np.ndarray | None = None,
) -> np.ndarray:
    """Rows (min(n, wanted),), ascending.

    Args:
        how: "random" (seeded); "confidence": the most confident; "informative": greedily those that
            most reduce the volume of the betas' posterior (D-optimal design), see `greedy_informative`.
        confidence: (n,); information: (n,10,10) what each image says about the betas.
        instant: (n,) of several cameras, equal for views of one instant: whole instants are chosen, at random.

    Raises:
        CalibrationError: if what ``how`` needs is missing. ValueError: if ``how`` is unknown.
    """
    if how not in SELECTIONS:
        raise ValueError(f"selection {how!r} is unknown; choose one of {SELECTIONS}")
    if wanted < 1:
        raise CalibrationError(f"--num_images is {wanted}; at least one image is needed")
    if instant is not None and how != "random":
        raise CalibrationError(f"--select {how} chooses single images; with several cameras use random")
    if wanted >= n:
        return np.arange(n)
    if instant is not None:
        names = np.unique(instant)
        per_instant = max(1, round(n / len(names)))
        chosen = choose_images(len(names), max(1, wanted // per_instant), "random", seed)
        return np.flatnonzero(np.isin(instant, names[chosen]))
    if how == "random":
        return np.sort(np.random.default_rng(seed).permutation(n)[:wanted])
    if how == "confidence":
        if confidence is None:
            raise CalibrationError("--select confidence needs the confidence of each image; use --select random")
        return np.sort(np.argsort(-confidence, kind="stable")[:wanted])
    if information is None:
        raise CalibrationError("--select informative needs 2D keypoints (--keypoints)")
    prior = np.eye(information.shape[-1]) if prior_precision is None else prior_precision
    return np.sort(greedy_informative(information, wanted, prior))


def greedy_informative(information: np.ndarray, wanted: int, prior_precision: np.ndarray) -> np.ndarray:
    """Rows (wanted,), in the order chosen: each maximises log det(prior + sum of information).

    log det is monotone and submodular, so the greedy choice reaches at least 1 - 1/e of the best
    (Nemhauser, Wolsey, Fisher 1978).
    """
    total = prior_precision.astype(np.float64).copy()
    left = np.arange(len(information))
    chosen = []
    for _ in range(wanted):
        gain = np.linalg.slogdet(total + information[left])[1]
        best = int(np.argmax(gain))
        chosen.append(left[best])
        total = total + information[left[best]]
        left = np.delete(left, best)
    return np.array(chosen)


def average_weights(
    n: int, method: str, confidence: np.ndarray | None, top_k: int = 10, temperature: float = 1.0
) -> np.ndarray:
    """Weight (N,) of each image; they sum to 1.

    Args:
        method: "mean": equal (what the released code did), and so "median"; "top_k": equal for the ``top_k`` most
            confident, zero for the rest; "confidence": softmax(confidence / temperature).
        confidence: (N,) ranking scores, higher is better; its scale is that of the ranking loss's
            margin, 1. Not needed for "mean".

    Raises:
        CalibrationError: no image, or no confidence where it is needed.
        ValueError: an unknown method, or top_k or temperature not positive.
    """
    if method not in AVERAGES:
        raise ValueError(f"average {method!r} is unknown; choose one of {AVERAGES}")
    if top_k < 1 or temperature <= 0:
        raise ValueError(f"top_k is {top_k} and temperature {temperature}; both must be positive")
    if n == 0:
        raise CalibrationError("no image to average; give predictions of this subject")
    if method in ("mean", "median"):
        return np.full(n, 1 / n)
    if confidence is None:
        raise CalibrationError(
            f"--method {method} needs the confidence of each image, which the predictions lack; "
            "predict with the mano_baseline_conf network, or use --method mean"
        )
    weights = np.zeros(n)
    if method == "top_k":
        best = np.argsort(-confidence, kind="stable")[:top_k]
        weights[best] = 1 / len(best)
        return weights
    shifted = (confidence.astype(np.float64) - confidence.max()) / temperature
    weights = np.exp(shifted)
    return weights / weights.sum()
