"""Rays against a sphere and a quad, whose answers are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from utils.drawing.ray_casting import RayCaster, block_centres, interpolate, pixel_rays, vertex_normals

K = np.array([[300.0, 0, 31.5], [0, 310.0, 23.5], [0, 0, 1]])


@pytest.fixture(scope="module")
def sphere() -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=0.08)
    return mesh.apply_translation([0.01, -0.02, 0.9])


def test_depth_of_sphere_matches_quadratic(sphere: trimesh.Trimesh) -> None:
    hits = RayCaster(sphere.vertices, sphere.faces).render(K, 64, 48)
    centre, radius = np.array([0.01, -0.02, 0.9]), 0.08
    for row in range(0, 48, 5):
        for column in range(0, 64, 5):
            direction = np.linalg.inv(K) @ [column, row, 1.0]
            a, b, c = direction @ direction, -2 * direction @ centre, centre @ centre - radius**2
            discriminant = b * b - 4 * a * c
            if discriminant > 1e-3:
                expected = (-b - np.sqrt(discriminant)) / (2 * a)
                assert hits.distance[row, column] == pytest.approx(expected, abs=4e-4)
            elif discriminant < -1e-3:
                assert hits.face[row, column] == -1 and np.isinf(hits.distance[row, column])


def test_interpolated_positions_lie_on_the_rays(sphere: trimesh.Trimesh) -> None:
    caster = RayCaster(sphere.vertices, sphere.faces)
    turn = trimesh.transformations.rotation_matrix(0.4, [0, 1, 0])[:3]
    pixels = np.random.default_rng(0).uniform(0, 47, (500, 2))
    origin, directions = pixel_rays(K, pixels, np.hstack([turn[:, :3], [[-0.3], [0.0], [0.05]]]))
    hits = caster.cast(np.broadcast_to(origin, directions.shape), directions)
    seen = np.flatnonzero(hits.face >= 0)
    assert len(seen) > 50
    points = interpolate(type(hits)(*(part[seen] for part in hits)), sphere.faces, np.asarray(sphere.vertices))
    np.testing.assert_allclose(points, origin + directions[seen] * hits.distance[seen, None], atol=1e-5)


def test_shadow_rays(sphere: trimesh.Trimesh) -> None:
    caster = RayCaster(sphere.vertices, sphere.faces)
    origins = np.array([[0.01, -0.02, 0.5], [0.01, -0.02, 0.5], [0.2, 0.2, 0.5]])
    directions = np.array([[0, 0, 1.0], [0, 0, -1.0], [0, 0, 1.0]])
    assert caster.occluded(origins, directions).tolist() == [True, False, False]


def test_coarse_blocks_are_where_resize_puts_them() -> None:
    np.testing.assert_allclose(block_centres(8, 16, 4), [9.5, 13.5])
    np.testing.assert_allclose(block_centres(3, 8, 1), [3, 4, 5, 6, 7])


def test_normals_of_sphere_point_outwards(sphere: trimesh.Trimesh) -> None:
    expected = (sphere.vertices - [0.01, -0.02, 0.9]) / 0.08
    assert np.abs(vertex_normals(sphere.vertices, sphere.faces) - expected).max() < 0.02


@pytest.mark.parametrize(
    "faces",
    [np.zeros((0, 3), int), np.array([[0, 1, 3]]), np.array([[0, -1, 2]]), np.ones((1, 2), int)],
)
def test_bad_meshes_are_refused(faces: np.ndarray) -> None:
    with pytest.raises(ValueError, match="faces"):
        RayCaster(np.eye(3), faces)
