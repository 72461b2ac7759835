"""Sparse pooling, spiral convolution and the hierarchy against slow definitions and invariants."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import scipy.sparse
import torch
import trimesh

from conv.closest_point import barycentric_projection
from conv.decimation import decimate
from conv.hierarchy import MeshHierarchy, build_hierarchy
from conv.pooling import SparsePool
from conv.spiral_conv import SpiralConv


@pytest.fixture(scope="module")
def open_mesh() -> tuple[np.ndarray, np.ndarray]:
    """A flattened ellipsoid with its end cut off, like a hand at the wrist: (V, 3) m, (F, 3)."""
    sphere = trimesh.creation.icosphere(subdivisions=2)
    vertices, faces = np.array(sphere.vertices) * [0.1, 0.05, 0.02], np.array(sphere.faces)
    faces = faces[vertices[faces].mean(1)[:, 0] < 0.08]
    used = np.unique(faces)
    return vertices[used], np.searchsorted(used, faces)


@pytest.fixture(scope="module")
def hierarchy(open_mesh: tuple[np.ndarray, np.ndarray]) -> MeshHierarchy:
    return build_hierarchy(*open_mesh, levels=(75, 38))


def test_pooling_and_its_gradient_equal_the_dense_product() -> None:
    torch.manual_seed(0)
    matrix = scipy.sparse.random(7, 5, density=0.4, random_state=0, format="csc")
    pool = SparsePool(matrix).double()
    dense = torch.tensor(matrix.toarray())
    features = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 7, 2, dtype=torch.float64)
    expected = torch.einsum("oi,bic->boc", dense.float().double(), features)
    torch.testing.assert_close(pool(features), expected)
    (gradient,) = torch.autograd.grad((pool(features) * weight).sum(), features)
    torch.testing.assert_close(gradient, torch.einsum("oi,boc->bic", dense.float().double(), weight))


def test_pooling_leaves_no_trace_in_the_state_dict_and_stays_float32_under_autocast() -> None:
    pool = SparsePool(scipy.sparse.identity(4, format="csr"))
    assert not pool.state_dict()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pool(torch.ones(1, 4, 2, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("pooled", [False, True])
def test_spiral_convolution_equals_its_definition(pooled: bool) -> None:
    """Against a float64 loop over vertices: pool, gather, concatenate, one linear layer."""
    generator = np.random.default_rng(1)
    coarse, fine, length, channels, out = 5, 6, 4, 3, 2
    up = scipy.sparse.random(fine, coarse, density=0.5, random_state=2, format="csr")
    up.data = np.round(up.data * 64) / 64  # exact in float32
    spirals = np.stack([generator.permutation(fine)[:length] for _ in range(fine)])
    conv = SpiralConv(spirals, channels, out, up if pooled else None).double()
    features = generator.normal(size=(2, coarse if pooled else fine, channels))
    weight, bias = (parameter.detach().numpy() for parameter in (conv.layer.weight, conv.layer.bias))
    expected = np.empty((2, fine, out))
    for image in range(2):
        level = up.toarray() @ features[image] if pooled else features[image]
        for vertex in range(fine):
            expected[image, vertex] = weight @ np.concatenate([level[n] for n in spirals[vertex]]) + bias
    np.testing.assert_allclose(conv(torch.tensor(features)).detach().numpy(), expected, atol=1e-12)


def test_spiral_convolution_gradients() -> None:
    spirals = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    up = scipy.sparse.csr_matrix(np.array([[1, 0], [0, 1], [0.5, 0.5]]))
    conv = SpiralConv(spirals, 2, 2, up).double()
    features = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, features)
    parameters = tuple(conv.layer.parameters())
    assert torch.autograd.gradcheck(lambda *_: conv(features.detach()), parameters)


def test_decimation_keeps_a_selection_and_a_manifold(open_mesh: tuple[np.ndarray, np.ndarray]) -> None:
    vertices, faces = open_mesh
    kept, coarse = decimate(vertices, faces, len(vertices) // 2)
    assert len(kept) == len(vertices) // 2 and (np.diff(kept) > 0).all()
    assert set(np.unique(coarse)) == set(range(len(kept)))
    assert _euler(faces) == _euler(coarse)
    assert max(_edge_uses(coarse).values()) == 2


def test_decimation_keeps_the_border_on_the_border(open_mesh: tuple[np.ndarray, np.ndarray]) -> None:
    vertices, faces = open_mesh
    kept, coarse = decimate(vertices, faces, len(vertices) // 2)
    border, coarse_border = _border(faces), {int(kept[v]) for v in _border(coarse)}
    assert coarse_border and coarse_border <= border
    assert coarse_border == border & set(kept.tolist())


def test_flat_sheets_cost_nothing_and_corners_stay() -> None:
    """On a flat square every inner vertex may go, the four corners must not."""
    side = np.arange(6.0)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    vertices = np.column_stack([grid, np.zeros(36)])
    quads = [(6 * i + j, 6 * i + j + 6, 6 * i + j + 7, 6 * i + j + 1) for i in range(5) for j in range(5)]
    faces = np.array([triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))])
    kept, coarse = decimate(vertices, faces, 9)
    assert {0, 5, 30, 35} <= set(kept.tolist())
    corners = vertices[kept][coarse]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2].sum() / 2
    assert abs(area) == pytest.approx(25.0)


def test_impossible_decimation_says_so() -> None:
    with pytest.raises(ValueError, match="stuck at"):
        decimate(np.eye(3), np.array([[0, 1, 2]]), 2)


def test_a_mesh_of_no_numbers_makes_no_levels(open_mesh: tuple[np.ndarray, np.ndarray]) -> None:
    vertices, faces = open_mesh
    for mesh in ((np.where(np.arange(len(vertices)) == 5, np.nan, vertices.T).T, faces), (vertices, faces + 500)):
        with pytest.raises(ValueError, match="not finite, or faces name others"):
            build_hierarchy(*mesh, levels=(20,))


def test_down_selects_and_up_interpolates(hierarchy: MeshHierarchy) -> None:
    fine = hierarchy.vertices
    for down, up in zip(hierarchy.down, hierarchy.up, strict=True):
        dense_down, dense_up = down.toarray(), up.toarray()
        assert set(np.unique(dense_down)) == {0.0, 1.0} and (dense_down.sum(1) == 1).all()
        assert (np.diff(up.indptr) == 3).all()
        np.testing.assert_allclose(dense_up.sum(1), 1)
        assert (dense_up >= 0).all()
        coarse = dense_down @ fine
        np.testing.assert_array_equal(dense_down @ dense_up, np.eye(len(coarse)))
        assert np.linalg.norm(dense_up @ coarse - fine, axis=1).mean() < 0.003  # metres, of a hand of 0.2
        fine = coarse


def test_hierarchy_survives_the_file(hierarchy: MeshHierarchy, tmp_path: object) -> None:
    hierarchy.save(tmp_path / "levels.npz")
    read = MeshHierarchy.load(tmp_path / "levels.npz")
    assert read.hash == hierarchy.hash and read.sizes == hierarchy.sizes
    for first, second in zip((*hierarchy.down, *hierarchy.up), (*read.down, *read.up), strict=True):
        np.testing.assert_array_equal(first.toarray(), second.toarray())


def test_a_file_that_is_no_hierarchy_is_named(tmp_path: object) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="other.npz"):
        MeshHierarchy.load(tmp_path / "other.npz")


def test_levels_that_do_not_fit_are_refused(hierarchy: MeshHierarchy) -> None:
    with pytest.raises(ValueError, match="are not finite"):
        dataclasses.replace(hierarchy, vertices=hierarchy.vertices * np.nan)
    with pytest.raises(ValueError, match="level 1"):
        MeshHierarchy(hierarchy.vertices, hierarchy.faces, hierarchy.down[:1] * 2, hierarchy.up)


def test_nearest_point_beats_every_sample(open_mesh: tuple[np.ndarray, np.ndarray]) -> None:
    """No point of a fine sampling of all triangles is nearer than the one found."""
    vertices, faces = open_mesh
    points = np.random.default_rng(0).normal(size=(20, 3)) * 0.1
    face, weights = barycentric_projection(points, vertices, faces)
    found = np.linalg.norm((weights[:, :, None] * vertices[faces[face]]).sum(1) - points, axis=1)
    i, j = np.meshgrid(np.arange(9), np.arange(9))
    grid = np.stack([i, j, 8 - i - j], -1).reshape(-1, 3)
    grid = grid[(grid >= 0).all(1)] / 8
    samples = np.einsum("sk,fkd->fsd", grid, vertices[faces]).reshape(-1, 3)
    sampled = np.linalg.norm(points[:, None] - samples, axis=2).min(1)
    assert (found <= sampled + 1e-12).all() and (found > sampled - 0.005).all()


def _edge_uses(faces: np.ndarray) -> Counter[tuple[int, int]]:
    return Counter(tuple(sorted(side)) for a, b, c in faces.tolist() for side in ((a, b), (b, c), (c, a)))


def _euler(faces: np.ndarray) -> int:
    return len(np.unique(faces)) - len(_edge_uses(faces)) + len(faces)


def _border(faces: np.ndarray) -> set[int]:
    return {vertex for side, uses in _edge_uses(faces).items() if uses == 1 for vertex in side}
