"""Checks of the stand-in hand that a reader can run: ``python -m template.stand_in --check``."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from template.assets import SHAPES as READ_SHAPES
from template.stand_in.grasps import GRASPS, grasp_pose, rotations_from_pose
from template.stand_in.remesh import inner_edges, neighbour_mean, sharp_edges
from template.stand_in.skeleton import unit
from template.stand_in.skinning import pose_hand
from template.stand_in.surface import field, gradient, hand_capsules
from utils.drawing.ray_casting import face_normals
from utils.joints import TIP_VERTICES

SHAPES = READ_SHAPES | {"kintree_table": (2, 16)}

#: Adults' hand length (ANSUR 1988, both sexes): mean and spread must fall within these, mm.
LENGTH_MEAN_MM, LENGTH_SPREAD_MM = (180.0, 196.0), (9.0, 14.0)


class Finding(NamedTuple):
    """One checked fact."""

    name: str
    passed: bool
    value: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name}: {self.value}"


def report(findings: list[Finding]) -> int:
    """Print every finding and how it ends; the number of those that failed."""
    failed = sum(not finding.passed for finding in findings)
    print(*findings, "all checks passed" if not failed else f"{failed} check(s) failed", sep="\n")
    return failed


def edge_counts(faces: np.ndarray) -> dict[tuple[int, int], int]:
    """How many faces (F,3) run along each directed edge."""
    return Counter(map(tuple, faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).tolist()))


def boundary_edges(faces: np.ndarray) -> list[tuple[int, int]]:
    """Directed edges, vertex to vertex, of faces (F,3) without a partner."""
    counts = edge_counts(faces)
    return [edge for edge in counts if edge[::-1] not in counts]


def components(faces: np.ndarray, vertices: int) -> int:
    """Number of connected pieces of faces (F,3); an unused vertex counts as one."""
    from scipy.sparse.csgraph import connected_components

    return connected_components(neighbour_mean(faces, vertices), directed=False)[0]


def folded_edges(vertices: np.ndarray, faces: np.ndarray, limit_degrees: float = 120.0) -> int:
    """Edges whose two faces turn against each other by more than the limit, degrees: folds of the skin."""
    return len(sharp_edges(vertices.astype(np.float64), faces, inner_edges(faces), limit_degrees))


def closed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume in m^3 of vertices (V,3), m, with the wrist closed by a fan; positive if the faces look outwards."""
    loop = boundary_edges(faces)
    centre = vertices[[a for a, _ in loop]].mean(axis=0)
    triangles = list(vertices[faces]) + [np.array([vertices[b], vertices[a], centre]) for a, b in loop]
    return float(sum(np.linalg.det(np.asarray(t, np.float64)) for t in triangles) / 6)


def hand_lengths_mm(hand: dict[str, np.ndarray], betas: np.ndarray) -> np.ndarray:
    """Wrist joint to middle fingertip (N,), mm, for betas (N, 10), flat hand."""
    tip = TIP_VERTICES["manopth"][2]
    row = -hand["J_regressor"][0].astype(np.float64)
    row[tip] += 1.0
    vector = row @ hand["v_template"] + np.einsum("v,vkb,nb->nk", row, hand["shapedirs"].astype(np.float64), betas)
    return np.linalg.norm(vector, axis=1) * 1e3


def check_hand(hand: dict[str, np.ndarray]) -> list[Finding]:
    """Every check, passed or not.

    Args:
        hand: the arrays of `template/stand_in.npz`, MANO's keys, metres.
    """
    found = {key: np.shape(hand.get(key)) for key in SHAPES}
    wrong = [f"{key} {found[key]}, not {shape}" for key, shape in SHAPES.items() if found[key] != shape]
    findings = [Finding("shapes of all arrays", not wrong, "; ".join(wrong) or f"{len(SHAPES)} arrays")]
    if wrong:
        return findings
    finite = all(np.isfinite(value).all() for value in hand.values())
    findings.append(Finding("all numbers finite", finite, str(finite)))
    return findings + _mesh(hand) + _skin(hand) + _population(hand) + _pose_space(hand)


def _mesh(hand: dict[str, np.ndarray]) -> list[Finding]:
    vertices, faces = hand["v_template"].astype(np.float64), hand["f"].astype(np.int64)
    loop, counts = boundary_edges(faces), edge_counts(faces)
    one_loop = len({a for a, _ in loop}) == len(loop) == len({b for _, b in loop})
    manifold = max(counts.values()) == 1
    euler = len(vertices) - (len(counts) + len(loop)) // 2 + len(faces)
    pieces, volume = components(faces, len(vertices)), closed_volume(vertices, faces) * 1e6
    areas = np.linalg.norm(face_normals(vertices, faces), axis=1) / 2
    folds = folded_edges(vertices, faces, 105.0)
    capsules = hand_capsules()
    outward = unit(gradient(vertices[faces].mean(axis=1), lambda points: field(points, capsules)))
    facing = (unit(face_normals(vertices, faces)) * outward).sum(axis=1).min()
    findings = [
        Finding("open wrist loop", len(loop) == 16 and one_loop, f"{len(loop)} edges"),
        Finding("manifold, one orientation", manifold, "each directed edge belongs to one face" if manifold else "no"),
        Finding("one piece, a disc", pieces == 1 and euler == 1, f"{pieces} piece(s), Euler number {euler}"),
        Finding("faces look outwards", volume > 0, f"volume {volume:.0f} cm^3"),
        Finding("smallest triangle", areas.min() > 5e-7, f"{areas.min() * 1e6:.2f} mm^2"),
        Finding("no face turned inwards (against the implicit surface)", facing > 0.2, f"smallest cosine {facing:.2f}"),
        Finding("no folded triangles at rest (105 degrees)", folds == 0, f"{folds} edges"),
    ]
    for finger, ids in enumerate(zip(*TIP_VERTICES.values())):
        spread = max(np.linalg.norm(vertices[a] - vertices[b]) for a in ids for b in ids) * 1e3
        findings.append(Finding(f"tip vertices of finger {finger} lie together", spread < 7, f"within {spread:.1f} mm"))
    shaped = sum(
        folded_edges(vertices + hand["shapedirs"] @ betas, faces, 120.0)
        for betas in np.concatenate([2.5 * np.eye(10), -2.5 * np.eye(10)])
    )
    findings.append(Finding("no folds at +-2.5 of each beta (120 degrees)", shaped == 0, f"{shaped} edges"))
    posed = {name: folded_edges(pose_hand(hand, rotations_from_pose(grasp_pose(name, 1.0))), faces) for name in GRASPS}
    worst = max(posed, key=posed.__getitem__)
    told = f"{sum(posed.values())} edges in {len(posed)} grasps, most in {worst}: {posed[worst]}"
    return [*findings, Finding("folds in closed grasps (120 degrees)", posed[worst] <= 40, told)]


def _skin(hand: dict[str, np.ndarray]) -> list[Finding]:
    weights, regressor = hand["weights"].astype(np.float64), hand["J_regressor"].astype(np.float64)
    off, used = np.abs(weights.sum(axis=1) - 1).max(), int((weights > 0).sum(axis=1).max())
    rows = np.abs(regressor.sum(axis=1) - 1).max()
    return [
        Finding("skinning rows sum to 1", off < 1e-5 and weights.min() >= 0, f"off by {off:.1e}"),
        Finding("joints a vertex", used <= 4, f"at most {used}"),
        Finding("J_regressor rows sum to 1", rows < 1e-5, f"off by {rows:.1e}"),
        Finding("J_regressor not negative", regressor.min() >= 0, f"{int((regressor > 0).sum())} entries"),
    ]


def _population(hand: dict[str, np.ndarray]) -> list[Finding]:
    lengths = hand_lengths_mm(hand, np.random.default_rng(0).standard_normal((4000, 10)))
    mean, spread = lengths.mean(), lengths.std()
    return [
        Finding("mean hand length of adults", LENGTH_MEAN_MM[0] < mean < LENGTH_MEAN_MM[1], f"{mean:.1f} mm"),
        Finding("spread of hand length", LENGTH_SPREAD_MM[0] < spread < LENGTH_SPREAD_MM[1], f"{spread:.1f} mm"),
    ]


def _pose_space(hand: dict[str, np.ndarray]) -> list[Finding]:
    components = hand["hands_components"].astype(np.float64)
    norms = np.linalg.norm(components, axis=1)
    unit = components / np.maximum(norms, 1e-12)[:, None]
    off = np.abs(unit @ unit.T - np.eye(45)).max()
    return [
        Finding("hands_components orthogonal", off < 1e-4, f"largest cosine {off:.1e}"),
        Finding("hands_components complete", norms.min() > 1e-3, f"norms {norms[0]:.2f} to {norms[-1]:.3f}"),
    ]
