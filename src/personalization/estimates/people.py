"""How people's hand shapes are spread, for the hand model in use: MANO's are not unit normal."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from src.personalization.calibration.population import Population, shapes_of
from src.personalization.solver.status import CalibrationError
from template import HandAssets
from utils.files import READ_ERRORS

#: Standard deviation of MANO's betas over real people, wider than the unit that its file suggests: a person of HOT3D's
#: sample has (-0.99, 0.07, -2.89, -2.89, -0.06, -2.37, -2.01, -1.57, 0.56, -1.55), whose root mean square is 1.8.
MANO_STD = 1.8
#: People that a covariance of ten numbers needs; it is drawn to its diagonal the more, the fewer they are.
LEAST = 12


def people_of(assets: HandAssets, path: str | os.PathLike | None = None) -> Population:
    """People's shapes: of a file of betas, else the shipped population's where it fits, of MANO a wide Gaussian.

    Args:
        path: npz with ``betas`` (N,10) of ``assets``, a row a person (several rows of one person count as several).

    Raises:
        FileNotFoundError, CalibrationError: no such file, or not what it must be.
    """
    if path is None and assets.name == "MANO":
        return Population(betas_covariance=MANO_STD**2 * np.eye(10), hand_hash=assets.hash)
    if path is None:
        return shapes_of(assets)
    if not Path(path).is_file():
        raise FileNotFoundError(f"--prior_from {path}: no such file; it is an npz with betas (N,10), a row a person")
    try:
        with np.load(path, allow_pickle=False) as archive:
            betas = np.asarray(archive["betas"], dtype=np.float64)
    except (*READ_ERRORS, KeyError, ValueError) as error:
        raise CalibrationError(f"{path} is no npz with betas (N,10), a row a person ({error})") from error
    if betas.ndim != 2 or betas.shape[1] != 10 or len(betas) < LEAST or not np.isfinite(betas).all():
        raise CalibrationError(
            f"{path}: betas are {betas.shape}; finite numbers of {LEAST} people or more, (N,10), are meant"
        )
    return population_of_betas(betas, assets)


def population_of_betas(betas: np.ndarray, assets: HandAssets) -> Population:
    """Mean and covariance of betas (N,10); off-diagonals shrink by 10 / (N + 10), as N people know them badly."""
    covariance = np.cov(betas.T)
    share = 10 / (len(betas) + 10)
    covariance = (1 - share) * covariance + share * np.diag(np.diag(covariance)) + 1e-4 * np.eye(10)
    return Population(betas.mean(axis=0), covariance, hand_hash=assets.hash)
