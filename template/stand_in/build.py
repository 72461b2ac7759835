"""Builds the whole stand-in hand and writes it in MANO's names and shapes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from template.assets import STAND_IN_PATH
from template.stand_in.correctives import fit_correctives
from template.stand_in.grasps import pose_components
from template.stand_in.population import shape_space
from template.stand_in.skeleton import joint_positions
from template.stand_in.skinning import mesh_weights
from template.stand_in.topology import template_mesh
from utils.files import atomic_path
from utils.joints import MANO_PARENTS

logger = logging.getLogger(__name__)


def build_hand() -> dict[str, np.ndarray]:
    """The model dict (float32 arrays, MANO's keys, metres): see `template.stand_in.check.SHAPES`."""
    vertices, faces = template_mesh()
    logger.info("mesh: %d vertices, %d faces", len(vertices), len(faces))
    space = shape_space(vertices)
    logger.info("shape: cumulative variance %s", np.round(space["explained"], 4))
    weights = mesh_weights(vertices, faces)
    regressor = joint_regressor(space["hands"], space["joints"])
    mean, components = pose_components()
    posedirs = fit_correctives(vertices, faces, weights, joint_positions())
    logger.info("correctives: up to %.1f mm per unit feature", np.abs(posedirs).max() * 1e3)
    arrays = {
        "v_template": space["v_template"],
        "shapedirs": space["shapedirs"],
        "posedirs": posedirs,
        "J_regressor": regressor,
        "weights": weights,
        "hands_components": components,
        "hands_mean": mean,
    }
    kintree = np.array([[2**32 - 1, *MANO_PARENTS[1:]], range(16)], dtype=np.int64)
    exact = {"f": faces.astype(np.uint32), "kintree_table": kintree}
    return {key: array.astype(np.float32) for key, array in arrays.items()} | exact


def joint_regressor(hands: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Sparse non-negative J_regressor (16, 778), rows summing to 1: a few vertices around each joint.

    Non-negative least squares over a population, so that it holds for every shape and not only for
    the mean hand; a small term pulls the weights towards being equal.

    Args:
        hands: (P, 778, 3) people's vertices, metres.
        joints: (P, 16, 3) their joints.
    """
    from scipy.optimize import nnls

    regressor = np.zeros((joints.shape[1], hands.shape[1]))
    chosen = np.linspace(0, len(hands) - 1, min(60, len(hands))).astype(int)
    for number in range(joints.shape[1]):
        distance = np.linalg.norm(hands.mean(axis=0) - joints[:, number].mean(axis=0), axis=1)
        near = np.argsort(distance)[: 80 if number == 0 else 40]
        rows = np.concatenate(
            [
                hands[chosen][:, near].transpose(0, 2, 1).reshape(-1, len(near)) * 1e3,
                1e4 * np.ones((1, len(near))),
                2.0 * np.eye(len(near)),
            ]
        )
        wanted = np.concatenate([joints[chosen, number].reshape(-1) * 1e3, [1e4], np.full(len(near), 2.0 / len(near))])
        weights, _ = nnls(rows, wanted)
        regressor[number, near] = weights / weights.sum()
    return regressor


def write_hand(hand: dict[str, np.ndarray], path: Path = STAND_IN_PATH) -> None:
    """Write the model dict as a compressed npz, atomically."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **hand)


def read_hand(path: Path = STAND_IN_PATH) -> dict[str, np.ndarray]:
    """Read the model dict back (arrays only, never pickle)."""
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
