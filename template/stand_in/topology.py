"""The template mesh: 778 vertices, 1538 faces, 16 edges at the wrist, fingertips at their fixed ids."""

from __future__ import annotations

import numpy as np

from template.stand_in.remesh import (
    LOOP_EDGES,
    VERTICES,
    WRIST_CUT,
    Collapser,
    boundary_loop,
    fine_mesh,
    inner_edges,
    neighbour_mean,
    relax,
    sharp_edges,
)
from template.stand_in.skeleton import MANO_FINGERS, finger_joints, joint_positions, tip_positions
from template.stand_in.skinning import point_weights, smoothstep
from template.stand_in.surface import Field, field, hand_capsules, project
from utils.joints import FINGERS, TIP_VERTICES


def edge_size(points: np.ndarray) -> np.ndarray:
    """Wished edge length (N,), metres, at rest-pose points: fine on fingers and finer on their tips."""
    weights = point_weights(points)
    fingers = 1.0 - weights[:, 0] - 0.6 * weights[:, finger_joints("thumb")[0]]
    size = 0.0118 + smoothstep(fingers) * (0.0062 - 0.0118)
    nearest = np.min([np.linalg.norm(points - tip, axis=1) for tip in tip_positions()], axis=0)
    # In the webs two fingers share the skin and its crease is sharp.
    shared = np.sort([weights[:, list(finger_joints(finger))].sum(axis=1) for finger in MANO_FINGERS], axis=0)[-2]
    return size * (0.72 + 0.28 * smoothstep((nearest - 0.004) / 0.010)) * (1.0 - 0.25 * smoothstep(shared / 0.3))


def template_mesh() -> tuple[np.ndarray, np.ndarray]:
    """Vertices (778, 3), m, and faces (1538, 3) of the mean hand at rest, ids as other tools expect them."""
    capsules = hand_capsules()

    def surface(points: np.ndarray) -> np.ndarray:
        return field(points, capsules)

    collapser = Collapser(*fine_mesh(surface), edge_size)
    collapser.run(2000, LOOP_EDGES)
    vertices, faces = collapser.mesh()
    vertices = _even_loop(vertices, faces, surface)
    vertices, faces = relax(vertices, faces, surface, edge_size, 4)
    collapser = Collapser(vertices, faces, edge_size)
    collapser.run(VERTICES, LOOP_EDGES)
    vertices, faces = relax(*collapser.mesh(), surface, edge_size, 12)
    tips = []
    for tip in tip_positions():
        nearest = int(np.argmin(np.linalg.norm(vertices - tip, axis=1)))
        vertices[nearest] = project(tip[None], surface)[0]
        tips.append(nearest)
    vertices, faces = relax(vertices, faces, surface, edge_size, 12, tuple(tips))
    vertices = _soften_creases(vertices, faces)
    order = vertex_order(vertices, dict(zip(MANO_FINGERS, tips)))
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    faces = position[faces]
    faces = np.stack([np.roll(face, -int(np.argmin(face))) for face in faces])
    return vertices[order], faces[np.lexsort(faces.T[::-1])]


def _soften_creases(vertices: np.ndarray, faces: np.ndarray, limit_degrees: float = 52.0) -> np.ndarray:
    """Blunt the sharpest creases (the webs): their vertices move towards their neighbours' mean."""
    inner, pinned, near = inner_edges(faces), boundary_loop(faces), neighbour_mean(faces, len(vertices))
    for _ in range(60):
        sharp = np.setdiff1d(sharp_edges(vertices, faces, inner, limit_degrees)[:, [0, 1, 3, 5]], pinned)
        vertices = vertices.copy()
        vertices[sharp] += 0.3 * (near[sharp] @ vertices - vertices[sharp])
    return vertices


def _even_loop(vertices: np.ndarray, faces: np.ndarray, surface: Field) -> np.ndarray:
    """The boundary's vertices at equal steps along its curve."""
    loop = boundary_loop(faces)
    curve = vertices[loop + loop[:1]]
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    wished = np.arange(len(loop)) * length[-1] / len(loop)
    vertices = vertices.copy()
    even = np.stack([np.interp(wished, length, curve[:, axis]) for axis in range(3)], axis=1)
    for _ in range(3):
        even = project(even, surface, steps=1)
        even[:, 0] = WRIST_CUT
    vertices[loop] = even
    return vertices


def vertex_order(vertices: np.ndarray, tips: dict[str, int]) -> np.ndarray:
    """order (778,) of vertices (m): new vertex i is old order[i]; the tips land on the ids of `TIP_VERTICES`.

    The rest follows in blocks: palm, index, middle, ring, little, thumb, wrist; from the palm out.
    """
    weights = point_weights(vertices)
    groups = ["index", "middle", "ring", "little", "thumb"]
    share = [weights[:, 0]] + [weights[:, list(finger_joints(finger))].sum(axis=1) for finger in groups]
    block = np.argmax(share, axis=0).astype(float)
    joints = joint_positions()
    block[(block == 0) & (vertices[:, 0] > np.sort(vertices[block == 0, 0])[-30])] = 6
    along = np.zeros(len(vertices))
    for number, finger in enumerate(groups, start=1):
        first = joints[finger_joints(finger)[0]]
        tip = tip_positions()[MANO_FINGERS.index(finger)]
        along = np.where(block == number, (vertices - first) @ (tip - first), along)
    along = np.where((block == 0) | (block == 6), -vertices[:, 0], along)
    sequence = [int(v) for v in np.lexsort((along, block))]

    reserved: dict[int, int] = {}
    for column, finger in enumerate(FINGERS):
        ids = list(dict.fromkeys(TIP_VERTICES[name][column] for name in TIP_VERTICES))
        if finger == "middle":
            ids.append(445)  # the left hand's manopth tip
        chosen = [tips[finger]]
        while len(chosen) < len(ids):  # next to all that are chosen, so that the set stays small
            distance = sum(np.linalg.norm(vertices - vertices[vertex], axis=1) for vertex in chosen)
            distance[chosen] = np.inf
            chosen.append(int(np.argmin(distance)))
        reserved.update(zip(ids, chosen))
    taken = set(reserved.values())
    rest = iter([v for v in sequence if v not in taken])
    return np.array([reserved[i] if i in reserved else next(rest) for i in range(len(vertices))])
