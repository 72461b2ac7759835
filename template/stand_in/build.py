"""Builds the whole stand-in hand and writes it in MANO's names and shapes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from utils.files import atomic_path
from utils.joints import MANO_PARENTS

STAND_IN_PATH = Path(__file__).resolve().parents[1] / "stand_in.npz"

logger = logging.getLogger(__name__)


def build_hand() -> dict[str, np.ndarray]:
    """The model dict (float32 arrays, MANO's keys): see `template.stand_in.check.SHAPES`."""
    from template.stand_in.correctives import fit_correctives
    from template.stand_in.population import shape_space
    from template.stand_in.pose_space import pose_components
    from template.stand_in.regressor import joint_regressor
    from template.stand_in.skeleton import joint_positions
    from template.stand_in.skinning import mesh_weights
    from template.stand_in.topology import template_mesh

    vertices, faces = template_mesh()
    logger.info("mesh: %d vertices, %d faces", len(vertices), len(faces))
    space = shape_space(vertices)
    logger.info("shape: cumulative variance %s", np.round(space["explained"], 4))
    weights = mesh_weights(vertices, faces)
    regressor = joint_regressor(space["hands"], space["joints"])
    mean, components = pose_components()
    posedirs = fit_correctives(vertices, faces, weights, joint_positions())
    logger.info("correctives: up to %.1f mm per unit feature", np.abs(posedirs).max() * 1e3)
    return {
        "v_template": space["v_template"].astype(np.float32),
        "shapedirs": space["shapedirs"].astype(np.float32),
        "posedirs": posedirs.astype(np.float32),
        "J_regressor": regressor.astype(np.float32),
        "weights": weights.astype(np.float32),
        "f": faces.astype(np.uint32),
        "hands_components": components.astype(np.float32),
        "hands_mean": mean.astype(np.float32),
        "kintree_table": np.array([[2**32 - 1, *MANO_PARENTS[1:]], range(16)], dtype=np.int64),
    }


def write_hand(hand: dict[str, np.ndarray], path: Path = STAND_IN_PATH) -> None:
    """Write the model dict as a compressed npz, atomically."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **hand)


def read_hand(path: Path = STAND_IN_PATH) -> dict[str, np.ndarray]:
    """Read the model dict back (arrays only, never pickle)."""
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
