"""The numbers the three official evaluators print, under their own names and in their own units.

Joints in standard order and metres on the way in; FreiHAND's and HO-3D's scores come out in
centimetres, DexYCB's in millimetres. HO-3D's joint order and OpenGL axes change none of the values
(both sides are permuted and flipped alike), so they are a matter of the files only (`submissions`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from src.evaluation.alignment import EPSILON_DEXYCB, procrustes_align, scale_translation_align
from src.evaluation.metrics import F_THRESHOLDS, auc, f_scores, point_errors, to_array

#: Alignments of joints that a server scores besides none, by the names it gives them.
ALIGNMENTS: dict[str, dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "freihand": {"xyz_al": procrustes_align},
    "ho3d": {"xyz_procrustes_al": procrustes_align, "xyz_scale_trans_al": scale_translation_align},
}


def _mean_and_auc(name: str, predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    errors = point_errors(predicted, truth)
    return {f"{name}_mean3d": float(errors.mean()) * 100, f"{name}_auc3d": auc(errors)}


def list_scores(
    server: str, joints: np.ndarray, vertices: np.ndarray, true_joints: np.ndarray, true_vertices: np.ndarray
) -> dict[str, float]:
    """The keys and values of FreiHAND's or HO-3D's scores.txt (docs/facts.md 3.4 and 4; means in cm).

    Args:
        server: of `ALIGNMENTS`.
        joints, true_joints: (N,21,3) metres, camera frame, standard order.
        vertices, true_vertices: (N,778,3) metres, camera frame.
    """
    joints, vertices, true_joints, true_vertices = map(to_array, (joints, vertices, true_joints, true_vertices))
    scores = _mean_and_auc("xyz", joints, true_joints)
    for name, align in ALIGNMENTS[server].items():
        scores |= _mean_and_auc(name, align(joints, true_joints), true_joints)
    aligned = procrustes_align(vertices, true_vertices)
    scores |= _mean_and_auc("mesh", vertices, true_vertices) | _mean_and_auc("mesh_al", aligned, true_vertices)
    raw, al = (f_scores(one, true_vertices, list(F_THRESHOLDS.values())).mean(axis=0) for one in (vertices, aligned))
    for column, threshold in enumerate((5, 15)):
        scores |= {f"f_score_{threshold}": float(raw[column]), f"f_al_score_{threshold}": float(al[column])}
    return scores


def dexycb_scores(joints: np.ndarray, true_joints: np.ndarray) -> dict[str, dict[str, float]]:
    """DexYCB's hand-pose table (docs/facts.md 2): rows absolute, root-relative, procrustes; mpjpe_mm and auc.

    Args:
        joints, true_joints: (N,21,3) metres, camera frame, standard order, un-mirrored; the samples
            whose joint_3d is valid, both sides, every frame.
    """
    joints, truth = to_array(joints), to_array(true_joints)
    rows = {
        "absolute": point_errors(joints, truth),
        "root-relative": point_errors(joints - joints[:, :1], truth - truth[:, :1]),
        "procrustes": point_errors(procrustes_align(joints, truth, EPSILON_DEXYCB), truth),
    }
    return {name: {"mpjpe_mm": float(errors.mean()) * 1000, "auc": auc(errors)} for name, errors in rows.items()}
