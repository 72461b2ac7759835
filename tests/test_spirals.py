"""Spirals against what OpenMesh gave on four small meshes, and against the shape of any spiral."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.csgraph import shortest_path

from conv.half_edge import HalfEdgeMesh
from conv.spiral import spiral_indices

RECORDED = json.loads((Path(__file__).parent / "data" / "openmesh_spirals.json").read_text())


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_rings_equal_openmesh(name: str) -> None:
    mesh = RECORDED[name]
    half_edges = HalfEdgeMesh(np.array(mesh["faces"]), len(mesh["vertices"]))
    assert [half_edges.ring(vertex) for vertex in range(len(mesh["vertices"]))] == mesh["ring"]


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_spirals_equal_openmesh(name: str) -> None:
    mesh = RECORDED[name]
    vertices = np.array(mesh["vertices"])
    spirals = spiral_indices(np.array(mesh["faces"]), len(vertices), 27, vertices)
    np.testing.assert_array_equal(spirals, mesh["spiral_27"])


def test_connected_meshes_need_no_positions() -> None:
    mesh = RECORDED["grid_8x8_shuffled_faces"]
    spirals = spiral_indices(np.array(mesh["faces"]), len(mesh["vertices"]), 27)
    np.testing.assert_array_equal(spirals, mesh["spiral_27"])


def test_order_of_faces_matters_only_for_inner_vertices() -> None:
    first, second = RECORDED["grid_8x8"], RECORDED["grid_8x8_shuffled_faces"]
    edge = {v for v in range(64) if v // 8 in (0, 7) or v % 8 in (0, 7)}
    differing = {v for v, (a, b) in enumerate(zip(first["ring"], second["ring"], strict=True)) if a != b}
    assert differing and not differing & edge


def test_a_short_spiral_is_the_start_of_a_longer_one() -> None:
    mesh = RECORDED["icosphere_162"]
    faces = np.array(mesh["faces"])
    np.testing.assert_array_equal(spiral_indices(faces, 162, 9), spiral_indices(faces, 162, 27)[:, :9])


def test_spirals_hold_each_vertex_once_and_grow_by_rings() -> None:
    mesh = RECORDED["icosphere_162"]
    faces = np.array(mesh["faces"])
    edges = scipy.sparse.coo_matrix((np.ones(faces.size), (faces.flatten(), np.roll(faces, 1, axis=1).flatten())))
    steps = shortest_path(edges, directed=False, unweighted=True)
    for vertex, spiral in enumerate(spiral_indices(faces, 162, 60)):
        assert spiral[0] == vertex
        assert len(set(spiral)) == 60
        assert (np.diff(steps[vertex, spiral]) >= 0).all()


def test_running_out_of_rings_is_said_or_filled_with_the_nearest() -> None:
    island = np.array([[0, 1, 2], [3, 4, 5]])
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [3, 0, 0], [4, 0, 0], [3, 5, 0]], dtype=float)
    with pytest.raises(ValueError, match="vertex 0 hold only 3 of 4"):
        spiral_indices(island, 6, 4)
    assert spiral_indices(island, 6, 4, vertices)[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        ([[0, 1, 2], [0, 1, 3]], "already has a face"),
        ([[0, 1, 1]], "twice"),
        ([[0, 1, 2], [0, 2, 3], [0, 3, 1], [0, 4, 5]], "already surrounded"),
    ],
)
def test_non_manifold_faces_are_refused(faces: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HalfEdgeMesh(np.array(faces), 6)


def test_mesh_smaller_than_the_spiral_is_refused() -> None:
    with pytest.raises(ValueError, match="the mesh has 3"):
        spiral_indices(np.array([[0, 1, 2]]), 3, 27)
