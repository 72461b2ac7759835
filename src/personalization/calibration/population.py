"""What is known before seeing a person: the spread of hand shapes, and how wrong the network usually is.

``python -m src.personalization.calibration.measure_population --data_root DIR --split s1_train --output FILE.npz`` measures it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from src.personalization.calibration.multi_frame import JointOptions
from src.personalization.calibration.shape_observation_model import NetworkShape
from src.personalization.fitting.fit import FitOptions
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.pose_prior import matrix_log
from utils.files import atomic_path

POPULATION_SCHEMA = 1
#: The command that writes such a file.
MAKE = "python -m src.personalization.calibration.measure_population"

Options = TypeVar("Options", FitOptions, JointOptions)


@dataclass
class Population:
    """Measured on people other than the one to be calibrated.

    Attributes:
        betas_mean: (10,); betas_covariance: (10,10).
        depth: (2,) mean and standard deviation of the wrist's z, m.
        pose_error: (48,48) rad^2 covariance of the network's pose errors over (joint, axis), local
            increments, or zeros where no predictions were given.
        keypoint_std_box: standard deviation of keypoints over the larger side of their box, or zero.
        hand_hash: the hand model that the betas belong to.
        network_gain (10,10), network_offset (10,), network_systematic, network_noise (10,10): see
            `network_shape.NetworkShape`; zeros where it was not measured.
    """

    betas_mean: np.ndarray
    betas_covariance: np.ndarray
    depth: np.ndarray
    pose_error: np.ndarray
    keypoint_std_box: np.ndarray
    hand_hash: str = ""
    network_gain: np.ndarray = field(default_factory=lambda: np.zeros((10, 10)))
    network_offset: np.ndarray = field(default_factory=lambda: np.zeros(10))
    network_systematic: np.ndarray = field(default_factory=lambda: np.zeros((10, 10)))
    network_noise: np.ndarray = field(default_factory=lambda: np.zeros((10, 10)))

    @property
    def network(self) -> NetworkShape | None:
        """What the network's predicted shapes say about a person; None where it was not measured."""
        parts = (self.network_gain, self.network_offset, self.network_systematic, self.network_noise)
        return NetworkShape(*parts) if self.network_gain.any() else None


def shrunk_covariance(samples: np.ndarray, prior: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of ``samples`` (n,d), pulled towards zero and ``prior`` (d,d), worth ``strength`` samples.

    The posterior mean of a normal-inverse-Wishart model: few people cannot fix ten dimensions.
    """
    n = len(samples)
    mean = samples.sum(axis=0) / (n + 1)
    centred = samples - mean
    return mean, (centred.T @ centred + strength * prior) / (n + strength)


def pose_error_covariance(predicted: torch.Tensor, truth: torch.Tensor, strength: float = 50.0) -> np.ndarray:
    """Covariance (48,48) rad^2 of log(predicted^T truth), second moment, for rotations (N,16,3,3).

    Errors larger than 1.5 rad in one rotation are clipped there: outliers, not the spread.
    """
    errors = matrix_log(predicted.double().mT @ truth.double())
    size = errors.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    errors = (errors * (1.5 / size).clamp_max(1.0)).flatten(1).numpy()
    return (errors.T @ errors + strength * 0.15**2 * np.eye(48)) / (len(errors) + strength)


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
        population = Population(**{**content, "hand_hash": str(content["hand_hash"])})
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CalibrationError(f"{path} is not a population file ({error}); make it with {MAKE}") from error
    if population.hand_hash != hand_hash:
        raise CalibrationError(
            f"{path} was made with hand model {population.hand_hash}, in use is {hand_hash}; make it again"
        )
    return population


#: Keypoint errors of one image move together, and those of one person repeat from image to image, but the
#: solvers take them for independent. So their standard deviation is doubled. The trial that this rests on:
#: ``python -m benchmarks.studies.choose_shared_error`` (its docstring holds what it printed).
SHARED_ERROR_FACTOR = 2.0


def with_population(
    options: Options, population: Population, keep_depth: bool = False, shared_error: float = SHARED_ERROR_FACTOR
) -> Options:
    """Options whose pose prior, keypoint noise and depth prior are those measured on other people.

    Args:
        keep_depth: leave the depth prior of ``options`` as it is.
        shared_error: factor on the keypoints' standard deviation.
    """
    prior, noise = options.prior, options.noise
    if population.pose_error.any():
        prior = replace(prior, covariance=torch.as_tensor(population.pose_error))
    if float(population.keypoint_std_box) > 0:
        noise = replace(noise, std_box=shared_error * float(population.keypoint_std_box))
    depth = {} if keep_depth else {"depth_mean": float(population.depth[0]), "depth_std": float(population.depth[1])}
    return replace(options, prior=prior, noise=noise, **depth)


def joint_with_population(
    options: JointOptions, population: Population, keep_depth: bool = False, shared_error: float = SHARED_ERROR_FACTOR
) -> JointOptions:
    """`with_population`, and the people's shapes and the network's habits as prior of a joint calibration."""
    return replace(
        with_population(options, population, keep_depth, shared_error),
        shape_mean=torch.as_tensor(population.betas_mean),
        shape_covariance=torch.as_tensor(population.betas_covariance),
        network=population.network,
    )
