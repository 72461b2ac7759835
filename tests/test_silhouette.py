"""Reach of silhouettes: what rasterising loses, which pieces count, and which point reaches farthest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from src.personalization.registration.problem import MeshObservations, extent_gaps, extent_terms
from src.personalization.registration.silhouette import (
    SPECK,
    TIP_RADIUS,
    directions,
    mesh_extents,
    raster_loss,
    silhouette_extents,
    without_specks,
)


def disc(centre: tuple[float, float], radius: float, size: int = 64) -> torch.Tensor:
    """(H,W) bool: pixels whose centre lies in a disc."""
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    return torch.as_tensor(np.hypot(x - centre[0], y - centre[1]) < radius)


def test_directions_are_even() -> None:
    found = directions(12)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(12).double())
    turn = torch.atan2(found[:, 1], found[:, 0])
    torch.testing.assert_close(turn.diff().remainder(2 * math.pi), torch.full((11,), math.pi / 6).double())
    assert found[0].tolist() == [1.0, 0.0]


def test_rasterising_loses_half_a_pixel_along_the_axes() -> None:
    """And less between them, where rows of pixel centres lie closer; never more than a pixel's diagonal."""
    loss = raster_loss()
    assert loss.shape == (91,) and loss[0] == pytest.approx(loss[90], abs=0.02)
    assert 0.3 < loss[0] < 0.7 and loss.min() > 0 and loss.max() < 2**0.5
    assert loss[45] < loss[0]
    np.testing.assert_allclose(loss, loss[::-1], atol=0.02)  # x and y are alike


def test_the_reach_of_discs_is_unbiased() -> None:
    """Discs of a fingertip's size anywhere among the pixels: the mean error of their reach is a tenth of a pixel."""
    random, axes = np.random.default_rng(0), directions(16)
    errors = []
    for _ in range(40):
        centre = tuple(32 + random.uniform(-0.5, 0.5, 2))
        found = silhouette_extents(disc(centre, TIP_RADIUS)[None], axes)[0]
        errors.append(found - axes @ torch.tensor(centre, dtype=torch.float64) - TIP_RADIUS)
    assert torch.stack(errors).mean(dim=0).abs().max() < 0.15


def test_small_pieces_are_left_out_and_large_ones_kept() -> None:
    """Against SciPy's labels: every piece of at least the share of the mask's area, and no other pixel."""
    random = np.random.default_rng(1)
    masks = torch.stack([disc((20, 20), 9) | disc((45, 45), 7) | torch.as_tensor(random.random((64, 64)) < 0.01)] * 2)
    masks[1, :, 30:] = False
    found = without_specks(masks).numpy()
    for mask, kept in zip(masks.numpy(), found, strict=True):
        labels, count = scipy.ndimage.label(mask, structure=np.ones((3, 3)))
        expected = np.zeros_like(mask)
        for piece in range(1, count + 1):
            if (labels == piece).sum() >= SPECK * mask.sum():
                expected |= labels == piece
        np.testing.assert_array_equal(kept, expected)
        assert kept.sum() < mask.sum()
    assert not without_specks(torch.zeros(1, 8, 8, dtype=torch.bool)).any()
    assert without_specks(torch.zeros(0, 8, 8, dtype=torch.bool)).shape == (0, 8, 8)


def test_a_silhouette_that_the_picture_cuts_off_is_of_unknown_reach() -> None:
    axes = directions(4)  # right, down, left, up
    cut = silhouette_extents(disc((58, 30), 7)[None], axes)[0]
    assert cut.isnan().tolist() == [True, False, False, False]
    assert silhouette_extents(torch.zeros(1, 9, 9, dtype=torch.bool), axes).isnan().all()


def test_the_reach_follows_the_affine_to_the_image() -> None:
    """A crop of twice the scale and its image: the same reach, px of the image."""
    axes, affine = directions(8), torch.tensor([[0.5, 0.0, 100.0], [0.0, 0.5, 50.0]])
    crop = silhouette_extents(disc((30, 34), 16)[None], axes, affine)[0]
    centre = torch.tensor([0.5 * 30 + 100, 0.5 * 34 + 50]).double()
    torch.testing.assert_close(crop, axes @ centre + 8, atol=0.3, rtol=0)


def test_the_farthest_point_of_a_mesh_by_a_loop() -> None:
    points, axes = torch.randn(2, 30, 2, generator=torch.Generator().manual_seed(0)).double(), directions(5)
    reach, index = mesh_extents(points, axes)
    for hand in range(2):
        for row, axis in enumerate(axes):
            along = [float(point @ axis) for point in points[hand]]
            assert float(reach[hand, row]) == pytest.approx(max(along))
            assert int(index[hand, row]) == along.index(max(along))


def meshes() -> tuple[MeshObservations, torch.Tensor]:
    """Two hands' points before a camera, the reach of their silhouettes off by some pixels, one reach unknown."""
    generator, axes = torch.Generator().manual_seed(3), directions(6)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    position = torch.tensor([[0.02, -0.03, 0.7], [0.1, 0.05, 0.9]], dtype=torch.float64)
    K = torch.tensor([[600.0, 0, 320], [0, 620, 240], [0, 0, 1]]).double().expand(2, 3, 3)
    vertices = 0.06 * normal(2, 25, 3)
    image = (vertices + position[:, None]) @ K.mT
    reach = (axes @ (image[..., :2] / image[..., 2:]).mT).max(dim=2).values
    weights = torch.ones(2, 6).double()
    weights[0, 2] = 0.0
    unseen = {"keypoints": torch.zeros(2, 21, 2).double(), "keypoint_weights": torch.zeros(2, 21).double()}
    seen = MeshObservations(vertices[:, :21], vertices, K, **unseen, extents=reach + 3 * normal(2, 6),
                            extent_weights=weights, axes=axes)  # fmt: skip
    return seen, position


def test_gaps_are_the_meshs_reach_less_the_silhouettes() -> None:
    seen, position = meshes()
    gap, ends, in_front = extent_gaps(seen, position)
    assert in_front.tolist() == [True, True] and gap[0, 2] == 0
    for hand in range(2):
        for row, axis in enumerate(seen.axes):
            places = [vertex + position[hand] for vertex in seen.vertices[hand]]
            along = [float((seen.K[hand] @ place)[:2] @ axis / place[2]) for place in places]
            torch.testing.assert_close(ends[hand, row], places[along.index(max(along))])
            if seen.extent_weights[hand, row] > 0:
                assert float(gap[hand, row]) == pytest.approx(max(along) - float(seen.extents[hand, row]))
    behind = torch.tensor([0.0, 0.0, -1.0]).double()
    assert not extent_gaps(seen, position + behind)[2].any()


def test_the_gradient_of_the_gaps_against_differences() -> None:
    seen, position = meshes()
    _, gradient, hessian = extent_terms(seen, position)
    size = 1e-6
    for axis in range(3):
        step = torch.zeros(3).double()
        step[axis] = size
        costs = [extent_terms(seen, position + sign * step)[0] for sign in (1, -1)]
        torch.testing.assert_close((costs[0] - costs[1]) / (2 * size), gradient[:, axis], rtol=1e-4, atol=1e-3)
    assert float(torch.linalg.eigvalsh(hessian).min()) > -1e-6
