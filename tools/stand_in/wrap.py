"""Lays the first stand-in's 778-vertex mesh onto another surface in the same rest pose, every index kept.

A thin-plate spline brings fingertips, webs and wrist loop into place; then closest points and a smooth
displacement alternate (non-rigid ICP; Amberg et al., CVPR 2007, with a Laplacian instead of affine maps).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
from scipy.interpolate import RBFInterpolator
from scipy.sparse.linalg import splu

from template.stand_in.remesh import WRIST_CUT, boundary_loop, inner_edges, neighbour_mean, sharp_edges
from template.stand_in.skeleton import MANO_FINGERS, finger_joints, joint_positions, tip_positions, unit
from template.stand_in.skinning import point_weights
from utils.drawing.ray_casting import RayCaster, face_normals, vertex_normals
from utils.joints import FINGERS, TIP_VERTICES

_STIFFNESS = (30.0, 10.0, 3.0, 1.0, 0.5, 0.3, 0.2, 0.2)
_TIPS = TIP_VERTICES["manopth"]
_NEIGHBOURS = (("index", "middle"), ("middle", "ring"), ("ring", "little"), ("thumb", "index"))


def wrap(coarse: np.ndarray, faces: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> scipy.sparse.csr_matrix:
    """Matrix (778, V) whose rows hold the barycentric weights of each coarse vertex on the surface.

    Args:
        coarse: (778, 3) of the first stand-in at rest, metres.
        faces: (1538, 3).
        vertices: (V, 3) of the surface at rest on the same skeleton, reaching beyond the wrist cut.
        triangles: (F, 3).
    """
    loop = boundary_loop(faces)
    wished = tip_positions()[[MANO_FINGERS.index(finger) for finger in FINGERS]]
    nearest = [np.argmin(np.linalg.norm(vertices - tip, axis=1)) for tip in wished]
    start, goal = [coarse[list(_TIPS)]], [vertices[nearest]]
    old, new = RayCaster(coarse, faces), RayCaster(vertices, triangles)
    for one, other in _NEIGHBOURS:
        origins, direction = _towards_web(one, other)
        found = [caster.cast(origins, np.tile(direction, (len(origins), 1))).distance for caster in (old, new)]
        seen = np.isfinite(found).all(axis=0)
        start.append(origins[seen] + found[0][seen, None] * direction)
        goal.append(origins[seen] + found[1][seen, None] * direction)
    rim = _rim(coarse[loop], new)
    joints = joint_positions()
    start, goal = np.concatenate([*start, coarse[loop], joints]), np.concatenate([*goal, rim, joints])
    spline = RBFInterpolator(start, goal, kernel="thin_plate_spline", smoothing=1e-7)
    fixed = np.concatenate([loop, _TIPS])
    places = np.concatenate([rim, goal[:5]])
    rest = spline(coarse)
    moved = rest.copy()
    laplacian = scipy.sparse.identity(len(coarse)) - neighbour_mean(faces, len(coarse))
    # Corresponding points belong to the same finger: a web's two sides must not swap.
    groups = [_groups(coarse), _groups(vertices)[triangles[:, 0]]]
    for stiffness in _STIFFNESS:
        face, weight, length = _nearest(moved, vertex_normals(moved, faces), vertices, triangles, groups)
        goal = np.einsum("nk,nkc->nc", weight, vertices[triangles[face]])
        trust = 1 / (1 + (length / 0.006) ** 2)  # what lies far away is trusted less
        goal[fixed], trust[fixed] = places, 50.0
        system = scipy.sparse.diags(trust) + stiffness * laplacian.T @ laplacian
        moved = rest + splu(system.tocsc()).solve(trust[:, None] * (goal - rest))
        rest = 0.5 * (rest + moved)
    onto = barycentric(moved, vertex_normals(moved, faces), vertices, triangles, groups)
    return _blunt_creases(onto, vertices, faces, loop)


def _blunt_creases(
    onto: scipy.sparse.csr_matrix, vertices: np.ndarray, faces: np.ndarray, loop: list[int], limit_degrees: float = 75.0
) -> scipy.sparse.csr_matrix:
    """Rows at creases too sharp for so few vertices (the webs) mixed with the rows of the crease's sides."""
    inner, count = inner_edges(faces), onto.shape[0]
    for _ in range(60):
        sharp = sharp_edges(onto @ vertices, faces, inner, limit_degrees)
        sharp = sharp[~np.isin(sharp[:, :2], loop).any(axis=1)]
        if not len(sharp):
            break
        ends, sides = sharp[:, [0, 0, 1, 1]].ravel(), sharp[:, [3, 5, 3, 5]].ravel()
        pull = scipy.sparse.csr_matrix((np.full(len(ends), 0.05), (ends, sides)), shape=(count, count))
        onto = onto + pull @ onto - scipy.sparse.diags(np.asarray(pull.sum(axis=1)).ravel()) @ onto
    return onto.tocsr()


def _towards_web(one: str, other: str) -> tuple[np.ndarray, np.ndarray]:
    """Three parallel rays from between two fingers to their common web."""
    joints, pair = joint_positions(), (finger_joints(one), finger_joints(other))
    ahead = np.mean([joints[numbers[2 if numbers == finger_joints("thumb") else 1]] for numbers in pair], axis=0)
    behind = np.mean([joints[numbers[0]] for numbers in pair], axis=0)
    return ahead + np.array([[0, lift, 0] for lift in (-0.004, 0.0, 0.004)]), unit(behind - ahead)


def _rim(loop: np.ndarray, caster: RayCaster) -> np.ndarray:
    """The loop's places on the surface in the plane of the wrist cut: the same angles around the middle."""
    centre = np.array([WRIST_CUT, *loop[:, 1:].mean(axis=0)])
    outward = unit(np.column_stack([np.zeros(len(loop)), loop[:, 1:] - centre[1:]]))
    hits = caster.cast(np.tile(centre, (len(loop), 1)), outward)
    return centre + hits.distance[:, None] * outward


def _groups(points: np.ndarray) -> np.ndarray:
    weights = point_weights(points)
    share = np.stack([weights[:, list(finger_joints(finger))].sum(axis=1) for finger in MANO_FINGERS], axis=1)
    return np.where(share.max(axis=1) > 0.85, 1 + share.argmax(axis=1), 0)


def _nearest(
    points: np.ndarray, normals: np.ndarray, vertices: np.ndarray, triangles: np.ndarray, groups: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Face, barycentric weights and distance of the closest surface point that looks the same way."""
    import trimesh

    corners = vertices[triangles]
    facing = unit(face_normals(vertices, triangles))
    centres = corners.mean(axis=1)
    face, weight, length = np.zeros(len(points), int), np.zeros((len(points), 3)), np.zeros(len(points))
    for number, point in enumerate(points):
        away = np.linalg.norm(centres - point, axis=1)
        away += np.where(facing @ normals[number] < 0.3, 0.02, 0.0)
        mine = groups[0][number]
        away += np.where((mine > 0) & (groups[1] > 0) & (groups[1] != mine), 0.05, 0.0)
        few = np.argpartition(away, 24)[:24]
        few = few[away[few] < away[few].min() + 0.01]
        places = trimesh.triangles.closest_point(corners[few], np.tile(point, (len(few), 1)))
        best = np.argmin(np.linalg.norm(places - point, axis=1))
        face[number], length[number] = few[best], np.linalg.norm(places[best] - point)
        weight[number] = trimesh.triangles.points_to_barycentric(corners[few[best]][None], places[best][None])[0]
    return face, np.clip(weight, 0, 1), length


def barycentric(
    points: np.ndarray, normals: np.ndarray, vertices: np.ndarray, triangles: np.ndarray, groups: list[np.ndarray]
) -> scipy.sparse.csr_matrix:
    """Sparse (N, V): the closest surface point of each point as a mean of its triangle's corners."""
    face, weight, _ = _nearest(points, normals, vertices, triangles, groups)
    weight = weight / weight.sum(axis=1, keepdims=True)
    entries = np.repeat(np.arange(len(points)), 3), triangles[face].ravel()
    return scipy.sparse.csr_matrix((weight.ravel(), entries), shape=(len(points), len(vertices)))


def bind(
    vertices: np.ndarray, triangles: np.ndarray, coarse: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which three coarse vertices (V, 3) carry each fine vertex's pose corrective, and their shares (V, 3)."""
    groups = [_groups(vertices), _groups(coarse)[faces[:, 0]]]
    face, weight, _ = _nearest(vertices, vertex_normals(vertices, triangles), coarse, faces, groups)
    return faces[face], weight / weight.sum(axis=1, keepdims=True)
