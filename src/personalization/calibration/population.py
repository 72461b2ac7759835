"""What is known before seeing a person: the spread of hand shapes, how wrong a network usually is, what follows of it.

``python -m src.personalization.calibration.measure_population --data_root DIR --split s1_train --output FILE.npz``
measures it; ``weights/prior.npz`` is what it found for the shipped networks.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from src.personalization.calibration.views import SHARED
from src.personalization.fitting.fit import FitOptions, PosePriorOptions
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.solver.levenberg_marquardt import LMOptions
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.frame_problem import ShapePrior
from src.personalization.terms.hand_size import LengthCue
from src.personalization.terms.shape_terms import NetworkShape
from utils.artifact_checks import HandLike
from utils.files import READ_ERRORS, atomic_path, read_reason
from utils.short_repr import ShortRepr

logger = logging.getLogger(__name__)

POPULATION_SCHEMA = 1
MAKE = "python -m src.personalization.calibration.measure_population"
#: Package data: the population of the stand-in hand, as the shipped networks see it.
SHIPPED_PRIOR = Path(__file__).resolve().parents[3] / "weights" / "prior.npz"
#: Keypoint errors of one image move together, and those of one person repeat from image to image, but the
#: solvers take them for independent. So their standard deviation is doubled. The trial that this rests on:
#: ``python -m benchmarks.studies.choose_shared_error`` (its docstring holds what it printed).
SHARED_ERROR_FACTOR = 2.0
#: Of the errors of networks' poses and keypoints, for intervals alone; found in the same trial.
INTERVAL_CORRELATION = 0.07

Options = TypeVar("Options", bound=FitOptions)


@dataclass(frozen=True, repr=False)
class Population(ShortRepr):
    """Measured on people other than the one to be calibrated. Left as it is: unit normal betas, nothing else known.

    Attributes:
        betas_mean: (10,); betas_covariance: (10,10).
        depth: (2,) mean and standard deviation of the wrist's z, m; zeros where it was not measured.
        pose_error: (48,48) rad^2 covariance of the network's pose errors over (joint, axis), local
            increments, or zeros where no predictions were given.
        keypoint_std_box: standard deviation of keypoints over the larger side of their box, or zero.
        hand_hash: the hand model that the betas belong to.
        network_gain (10,10), network_offset (10,), network_systematic, network_noise (10,10): see
            `NetworkShape`; zeros where it was not measured.
        model_name, dataset: network and data set that errors and depths were measured on; "" in older files.
    """

    betas_mean: np.ndarray = field(default_factory=lambda: np.zeros(10))
    betas_covariance: np.ndarray = field(default_factory=lambda: np.eye(10))
    depth: np.ndarray = field(default_factory=lambda: np.zeros(2))
    pose_error: np.ndarray = field(default_factory=lambda: np.zeros((48, 48)))
    keypoint_std_box: np.ndarray = field(default_factory=lambda: np.zeros(()))
    hand_hash: str = ""
    network_gain: np.ndarray = field(default_factory=lambda: np.zeros((10, 10)))
    network_offset: np.ndarray = field(default_factory=lambda: np.zeros(10))
    network_systematic: np.ndarray = field(default_factory=lambda: np.zeros((10, 10)))
    network_noise: np.ndarray = field(default_factory=lambda: np.zeros((10, 10)))
    model_name: str = ""
    dataset: str = ""

    @property
    def network(self) -> NetworkShape | None:
        """What the network's predicted shapes say about a person; None where it was not measured."""
        return NetworkShape(*self._seen) if self.network_gain.any() else None

    @property
    def _seen(self) -> tuple[np.ndarray, ...]:
        return self.network_gain, self.network_offset, self.network_systematic, self.network_noise

    @property
    def hash(self) -> str:
        """Twelve hex digits that name what it says about shapes: identities made with it can be merged."""
        parts = (self.betas_mean, self.betas_covariance, *self._seen)
        content = b"".join(np.ascontiguousarray(part, dtype=np.float64).tobytes() for part in parts)
        return hashlib.sha256(content).hexdigest()[:12]

    def shapes_only(self) -> Population:
        """People's shapes alone, for evidence that does not come from the network it was measured on."""
        return Population(self.betas_mean, self.betas_covariance, hand_hash=self.hand_hash)

    @property
    def shape_prior(self) -> ShapePrior:
        """People's shapes as a Gaussian for a solver, float64 on the CPU."""
        return ShapePrior(torch.as_tensor(self.betas_mean), torch.as_tensor(np.linalg.inv(self.betas_covariance)))


@dataclass(frozen=True)
class CalibrationOptions(FitOptions):
    """What calibration believes beforehand: `FitOptions` (``shape_prior`` and ``chunk`` are not used), and

    Attributes:
        population: people's shapes, and how the network sees them: its predicted betas are then evidence.
        cues: measured lengths.
        wrist_depth_std: m, of measured wrist depths.
        errors_repeat: how keypoints and poses err was not measured, so the worst is assumed: the same error in every
            image of a person. All of them together then tell as much as one.
        landmarks: of the keypoints' source; None: the hand's own joints and tips.
        error_correlation: the part of the images' errors that they share: n images tell as much as
            n / (1 + (n - 1) error_correlation) independent ones (the design effect, Kish 1965, section 5.4).
        own_points: of ``landmarks``, how far this person's points lie from them is solved for (`MultiFrameProblem`).
        video_correlation: the same of a video's views, if more. same_video: all are of one, or of none; None: told.
        interval_correlation: the part that errors share though betas are solved as if they did not, which errs least:
            intervals are of n images whose errors vary 1 + (n - 1) interval_correlation times as much
            (`hand_size.dispersed`).
        laplace: correct the betas for the room that poses and positions have (`problem.log_volume_gradient`); None:
            where the depth is known.
        accept_conflict: use a cue even where it contradicts the images.
        prediction: of each image on its own, what is believed of its source's pose (`KeypointFitOptions`).
        depths: m; a hand that its keypoints and K place elsewhere was seen by another camera than that K's.
    """

    population: Population = field(default_factory=Population)
    cues: tuple[LengthCue, ...] = ()
    wrist_depth_std: float = 0.01
    errors_repeat: bool = False
    landmarks: LandmarkModel | None = None
    error_correlation: float = 0.0
    own_points: bool = False
    video_correlation: float = SHARED
    same_video: bool | None = None
    interval_correlation: float = 0.0
    laplace: bool | None = None
    prediction: PosePriorOptions | None = None
    accept_conflict: bool = False
    depths: tuple[float, float] = (0.08, 4.0)
    lm: LMOptions = field(default_factory=lambda: LMOptions(max_steps=100))

    def __post_init__(self) -> None:
        if not 0 <= self.error_correlation <= 1:
            raise CalibrationError(f"error_correlation is {self.error_correlation}; it is a part of the errors, 0 to 1")

    @property
    def own_share(self) -> np.ndarray | None:
        """`LandmarkModel.own_share` where a person's own points are asked for."""
        return self.landmarks.own_share if self.own_points and self.landmarks is not None else None

    @property
    def in_common(self) -> tuple[float, float]:
        """Of their errors, the part that all images share, and of the rest what views of a video share besides."""
        everywhere = 1.0 if self.errors_repeat else self.error_correlation
        in_video = max(0.0, self.video_correlation - everywhere)
        return everywhere, in_video / (1 - everywhere) if in_video else 0.0


def save_population(path: str | os.PathLike, population: Population) -> None:
    """Write a `.npz` of plain arrays, atomically."""
    arrays = {item.name: np.asarray(getattr(population, item.name)) for item in fields(population)}
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, schema=np.array(POPULATION_SCHEMA), **arrays)


def load_population(path: str | os.PathLike, hand_hash: str) -> Population:
    """Read what `save_population` wrote.

    Raises:
        FileNotFoundError: no such file. CalibrationError: not such a file, or of another hand model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"population file {path} does not exist; make it with {MAKE}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
        schema = int(content.pop("schema"))
        if schema != POPULATION_SCHEMA:
            raise CalibrationError(f"{path}: schema is {schema}, this code reads {POPULATION_SCHEMA}")
        words = {name: str(content[name]) for name in ("hand_hash", "model_name", "dataset") if name in content}
        population = Population(**{**content, **words})
        like = Population()
        for item in fields(population):
            value, wanted = getattr(population, item.name), getattr(like, item.name)
            if isinstance(wanted, np.ndarray) and (value.shape != wanted.shape or not np.isfinite(value).all()):
                raise CalibrationError(f"{path}: {item.name} must be {wanted.shape} finite numbers, not {value.shape}")
    except READ_ERRORS as error:
        reason = read_reason(error)
        raise CalibrationError(f"{path} is not a population file ({reason}); make it with {MAKE}") from error
    if population.hand_hash != hand_hash:
        raise CalibrationError(
            f"{path} was made with hand model {population.hand_hash}, in use is {hand_hash}; make it again"
        )
    return population


def shipped_population(assets: HandLike, path: Path = SHIPPED_PRIOR) -> Population | None:
    """The packaged population if it belongs to the hand in use, else None (said in the log)."""
    try:
        found = load_population(path, assets.hash)
    except (CalibrationError, FileNotFoundError) as error:
        logger.warning("no shipped prior for the hand %r (%s)", assets.name, error)
        return None
    # Files of before 2026-11-26 do not say what they were measured on; the shipped one is of these.
    names = {"model_name": found.model_name or "mano_baseline_conf", "dataset": found.dataset or "dex_ycb"}
    return replace(found, **names)


def shapes_of(assets: HandLike, population: Population | None = None) -> Population:
    """People's shapes alone: of the population given, of the shipped one if it is of this hand, or unit normal."""
    found = shipped_population(assets) if population is None else population
    return Population() if found is None else found.shapes_only()


def with_population(
    options: Options, population: Population, keep_depth: bool = False, shared_error: float = SHARED_ERROR_FACTOR
) -> Options:
    """Options whose pose prior (rad), keypoint noise and depth prior (m) are those measured on other people.

    Args:
        keep_depth: leave the depth prior of ``options`` as it is.
        shared_error: factor on the keypoints' standard deviation.
    """
    prior, noise = options.prior, options.noise
    if population.pose_error.any():
        prior = replace(prior, covariance=torch.as_tensor(population.pose_error))
    if float(population.keypoint_std_box) > 0:
        noise = replace(noise, std_box=shared_error * float(population.keypoint_std_box))
    known = not keep_depth and population.depth[1] > 0
    depth = {"depth_mean": float(population.depth[0]), "depth_std": float(population.depth[1])} if known else {}
    return replace(options, prior=prior, noise=noise, **depth)


def calibration_options(
    population: Population, keep_depth: bool = False, shared_error: float = SHARED_ERROR_FACTOR
) -> CalibrationOptions:
    """`with_population`, whose options these are, and the people's shapes and the network's habits as prior of a
    calibration."""
    shared = INTERVAL_CORRELATION if population.network is not None else 0.0
    believed = with_population(CalibrationOptions(), population, keep_depth, shared_error)
    return replace(believed, population=population, interval_correlation=shared)


def default_options(
    assets: HandLike, model_name: str, dataset: str, population: Population | None = None, errors_known: bool = False
) -> CalibrationOptions:
    """What is believed of predictions: the population given, or the shipped one, as far as it is about them.

    Args:
        model_name, dataset: network and data set of the predictions. Of another network only people's shapes are
            taken from the file, of another data set not the depth; of another hand nothing.
        errors_known: how poses and keypoints err will be stated, so only people's shapes are asked for.
    """
    if population is not None:
        return calibration_options(population)
    if errors_known:
        return CalibrationOptions(population=shapes_of(assets))
    found = shipped_population(assets)
    if found is not None and found.model_name == model_name:
        return calibration_options(found, keep_depth=found.dataset != dataset)
    whose = "people's hands" if found is None else f"the errors of the network {model_name!r}"
    logger.warning(
        "how much %s differ was not measured: shapes are taken for %s, and errors for repeating in every image, so "
        "intervals are as wide as of one image. Measure it (%s) and give the file (--prior), or give --keypoint_std "
        "and --finger_std",
        whose,
        "unit normal" if found is None else "the shipped population's",
        MAKE,
    )
    return CalibrationOptions(population=Population() if found is None else found.shapes_only(), errors_repeat=True)
