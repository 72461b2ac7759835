"""The right hand and forearm cut out of MakeHuman's mesh, and its subdivision (Catmull and Clark 1978)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from template.stand_in.skeleton import MANO_FINGERS, finger_joints
from tools.stand_in.makehuman import BaseMesh
from utils.drawing.ray_casting import face_normals

#: The forearm is cut this far behind the wrist, as a share of the way to the elbow.
_ARM_SHARE = 0.80


@dataclass(frozen=True)
class Cut:
    """A part of the base mesh with its own numbering."""

    ids: np.ndarray  # (N,) vertex numbers in the base mesh
    quads: np.ndarray  # (Q, 4)
    uv: np.ndarray  # (T, 2)
    uv_quads: np.ndarray  # (Q, 4)


def cut_arm(base: BaseMesh, weights: np.ndarray, wrist: np.ndarray, elbow: np.ndarray) -> Cut:
    """Quads of the hand and the forearm up to `_ARM_SHARE` of the way to the elbow."""
    along = (base.vertices - wrist) @ (elbow - wrist) / ((elbow - wrist) @ (elbow - wrist))
    inside = (weights.sum(axis=1) > 0.5) & (along < _ARM_SHARE)
    chosen = inside[base.quads].all(axis=1)
    ids, quads = np.unique(base.quads[chosen], return_inverse=True)
    uv_ids, uv_quads = np.unique(base.uv_quads[chosen], return_inverse=True)
    return Cut(ids, quads.reshape(-1, 4), base.uv[uv_ids], uv_quads.reshape(-1, 4))


def subdivide(quads: np.ndarray, count: int) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """One step of Catmull and Clark (Computer-Aided Design 10(6), 1978) as a matrix.

    Args:
        quads: (Q, 4) of `count` vertices, which may have open edges (these get the cubic spline's rule).

    Returns:
        matrix (count + Q + E, count) that turns old vertices into new ones, and the new quads (4 Q, 4).
    """
    edge_points, (faces, halves, middles, inner), number = _centres_and_edges(quads, count)
    rim = np.zeros(count, bool)
    rim[middles[~inner].ravel()] = True
    valence = np.bincount(quads.ravel(), minlength=count)
    corner, ends = _incidence(quads, count), _incidence(middles, count)
    n = np.maximum(valence, 1).astype(float)
    smooth = (
        scipy.sparse.diags(1 / n**2) @ corner @ faces
        + scipy.sparse.diags(2 / n**2) @ ends @ halves
        + scipy.sparse.diags((n - 3) / n)
    )
    outline = scipy.sparse.diags((~inner).astype(float))
    curve = 0.5 * scipy.sparse.identity(count) + scipy.sparse.diags(np.full(count, 0.25)) @ ends @ outline @ halves
    corners = scipy.sparse.diags((~rim).astype(float)) @ smooth + scipy.sparse.diags(rim.astype(float)) @ curve
    return scipy.sparse.vstack([corners, faces, edge_points]).tocsr(), number


def subdivide_linear(quads: np.ndarray, count: int) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """The same new quads with points in the middle of edges and faces: for UVs and weights."""
    _, (faces, halves, _, _), number = _centres_and_edges(quads, count)
    return scipy.sparse.vstack([scipy.sparse.identity(count), faces, halves]).tocsr(), number


def _incidence(groups: np.ndarray, count: int) -> scipy.sparse.csr_matrix:
    """(count, G): 1 where a vertex belongs to a group, for groups (G, k)."""
    number = np.repeat(np.arange(len(groups)), groups.shape[1])
    return scipy.sparse.csr_matrix((np.ones(groups.size), (groups.ravel(), number)), shape=(count, len(groups)))


def _centres_and_edges(quads: np.ndarray, count: int) -> tuple:
    """Edge points; face centres, edge middles, the edges (E, 2) and which have two faces; the new quads."""
    sides = np.sort(np.stack([quads, np.roll(quads, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
    middles, which, uses = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
    which, inner = which.reshape(-1, 4), uses == 2
    faces, halves = 0.25 * _incidence(quads, count).T, 0.5 * _incidence(middles, count).T
    beside = _incidence(which, len(middles))
    edge_points = (
        scipy.sparse.diags(np.where(inner, 0.5, 1.0)) @ halves
        + scipy.sparse.diags(np.where(inner, 0.25, 0.0)) @ beside @ faces
    )
    centre, middle = count + np.arange(len(quads)), count + len(quads) + which
    new = np.concatenate([np.stack([quads[:, k], middle[:, k], centre, middle[:, k - 1]], axis=1) for k in range(4)])
    return edge_points, (faces, halves, middles, inner), new


def trim(vertices: np.ndarray, quads: np.ndarray, end: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends the forearm in the plane x = end.

    Returns:
        numbers of the vertices that stay, which quads (Q,) stay, and how far (V,) along x each vertex is moved.
    """
    stays = vertices[quads][:, :, 0].mean(axis=1) < end
    sides = np.sort(np.stack([quads[stays], np.roll(quads[stays], -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
    edges, uses = np.unique(sides, axis=0, return_counts=True)
    rim = np.unique(edges[uses == 1])
    shift = np.zeros(len(vertices))
    shift[rim] = end - vertices[rim, 0]
    return np.unique(quads[stays]), stays, shift


def repack(uv: np.ndarray, uv_faces: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The UV islands (hand, forearm) side by side in the unit square, with equal texture a square metre."""
    edges = np.concatenate([uv_faces[:, [0, 1]], uv_faces[:, [1, 2]]])
    graph = scipy.sparse.csr_matrix((np.ones(len(edges)), edges.T), shape=(len(uv), len(uv)))
    count, island = scipy.sparse.csgraph.connected_components(graph, directed=False)
    area = np.linalg.norm(face_normals(vertices, faces), axis=1) / 2
    corner = uv[uv_faces]
    one, two = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    flat = np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]) / 2
    packed, left = np.zeros_like(uv), 0.0
    for number in sorted(range(count), key=lambda n: -(island == n).sum()):
        mine, its_faces = island == number, island[uv_faces[:, 0]] == number
        scaled = (uv[mine] - uv[mine].min(axis=0)) * np.sqrt(area[its_faces].sum() / flat[its_faces].sum())
        packed[mine] = scaled + [left, 0.0]
        left += np.ptp(scaled[:, 0]) * 1.02
    return 0.005 + 0.99 * packed / packed.max()


def triangles(quads: np.ndarray) -> np.ndarray:
    """(2 Q, 3) from quads (Q, 4), cut from the first to the third corner."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def sample(mask: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Values (T,) of a picture (H, W) at texture points (T, 2), v upwards."""
    places = np.stack([uv[:, 0] * mask.shape[1] - 0.5, (1 - uv[:, 1]) * mask.shape[0] - 0.5], axis=1)
    return cv2.remap(mask, places[None].astype(np.float32), None, cv2.INTER_LINEAR)[0]


def nails_by_finger(share: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Finger -> vertex numbers whose nail share (N,) exceeds a half; weights as of `blend_weights`."""
    owner = np.argmax(weights, axis=1)
    return {finger: np.flatnonzero((share > 0.5) & (owner == 1 + finger_joints(finger)[2])) for finger in MANO_FINGERS}
