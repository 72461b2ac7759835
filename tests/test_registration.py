"""Camera-space registration: exact without noise, robust, better with silhouettes, and named where it cannot be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from benchmarks.scenes.simulation import SimulationOptions, simulate
from src.personalization.registration.least_median_of_squares import least_median_start, weighted_median
from src.personalization.registration.problem import MeshObservations, RegistrationProblem
from src.personalization.registration.register import Registration, register_mesh
from src.personalization.registration.silhouette import directions, silhouette_extents
from src.personalization.solver.status import Status, usable
from template import HandModel, load_hand_assets
from utils.camera import project
from utils.drawing.overlay import mesh_silhouette

B = 24


@dataclass
class World:
    """Root-relative meshes with the truth: position (B,3) m, exact keypoints px, exact extents px."""

    vertices: torch.Tensor
    joints: torch.Tensor
    K: torch.Tensor
    position: torch.Tensor
    keypoints: torch.Tensor
    extents: torch.Tensor

    def register(self, **changes: torch.Tensor | None) -> Registration:
        given = {name: getattr(self, name) for name in ("vertices", "joints", "K", "keypoints")}
        return register_mesh(**{**given, **changes})

    def error(self, result: Registration) -> torch.Tensor:
        return (result.transl - self.position).norm(dim=1)


@pytest.fixture(scope="module")
def world() -> World:
    assets = load_hand_assets()
    people = simulate(assets, B, 1, SimulationOptions(noise_px=0, pose_noise=0), seed=3)
    hand = HandModel(assets, dtype=torch.float64)(people.pose[:, 0], people.betas, people.transl[:, 0])
    root, K = hand.joints[:, :1], people.K[:, 0]
    extents = (project(hand.vertices, K) @ directions(24).mT).amax(dim=1)
    return World(hand.vertices - root, hand.joints - root, K, root[:, 0], project(hand.joints, K), extents)


def noise(world: World, std: float, seed: int = 0) -> torch.Tensor:
    return world.keypoints + std * torch.randn(B, 21, 2, generator=torch.Generator().manual_seed(seed)).double()


def with_outliers(world: World, share: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Keypoints of which ``share`` of each hand's are thrown 40 to 120 px off, and which."""
    generator = torch.Generator().manual_seed(seed)
    thrown = torch.rand(B, 21, generator=generator).argsort(dim=1) < round(share * 21)
    angle = 2 * math.pi * torch.rand(B, 21, generator=generator).double()
    length = 40 + 80 * torch.rand(B, 21, generator=generator).double()
    off = length[..., None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
    return torch.where(thrown[..., None], world.keypoints + off, world.keypoints), thrown


def test_exact_without_noise(world: World) -> None:
    for result in (world.register(), world.register(extents=world.extents)):
        assert usable(result.status).all() and result.inliers.all()
        assert float(world.error(result).max()) < 1e-6
        assert float(result.reprojection_px.max()) < 1e-4
    assert (result.extents_used == 24).all()


def test_outliers_are_found_and_do_not_matter(world: World) -> None:
    keypoints, thrown = with_outliers(world, 0.2)
    assert (thrown.sum(dim=1) == 4).all()
    result = world.register(keypoints=keypoints)
    assert float(world.error(result).max()) < 1e-3  # the direct linear transform alone is off by centimetres
    assert torch.equal(result.inliers, ~thrown)
    noisy, _ = with_outliers(world, 0.2)
    noisy = noisy + noise(world, 1.0) - world.keypoints
    mixed, clean = (world.error(world.register(keypoints=some)) for some in (noisy, noise(world, 1.0)))
    assert float(mixed.median()) < 1.6 * float(clean.median())
    # A third, all thrown the same way: still a minority.
    shifted = world.keypoints.clone()
    shifted[:, 9:16] += 60
    assert float(world.error(world.register(keypoints=shifted)).max()) < 1e-3


def test_start_is_the_least_median_of_all_pairs(world: World) -> None:
    keypoints, _ = with_outliers(world, 0.4, seed=1)
    weights = torch.ones(B, 21).double()
    position, middle, placed = least_median_start(world.joints, world.K, keypoints, weights)
    assert placed.all()
    torch.testing.assert_close(position, world.position, atol=1e-6, rtol=0)
    assert float(middle.max()) < 1e-5
    values = torch.tensor([[5.0, 1, 2, 9, 3]])
    assert float(weighted_median(values, torch.ones(1, 5))) == 3
    assert float(weighted_median(values, torch.tensor([[0.0, 1, 0, 5, 1]]))) == 9
    assert float(weighted_median(values, torch.zeros(1, 5))) == math.inf


def test_silhouette_extents_help_noisy_keypoints(world: World) -> None:
    keypoints = noise(world, 4.0)
    alone = world.register(keypoints=keypoints)
    blurred = world.extents + 0.3 * torch.randn(B, 24, generator=torch.Generator().manual_seed(1)).double()
    both = world.register(keypoints=keypoints, extents=blurred)
    depth = [(result.transl - world.position)[:, 2].square().mean().sqrt() for result in (alone, both)]
    assert float(depth[1]) < 0.25 * float(depth[0])
    assert float(both.extent_std_px.median()) < 1 < 2.5 < float(both.keypoint_std_px.median())
    # The other way round: poor silhouettes do not spoil good keypoints.
    poor = world.extents + 15 * torch.randn(B, 24, generator=torch.Generator().manual_seed(2)).double()
    spoiled = world.register(keypoints=noise(world, 0.5), extents=poor)
    good = world.register(keypoints=noise(world, 0.5))
    assert float(world.error(spoiled).mean()) < 1.3 * float(world.error(good).mean())


def test_hidden_ends_are_left_out(world: World) -> None:
    hidden = world.extents.clone()
    hidden[:, :8] -= 25  # an object in front takes a third of the ends away
    result = world.register(keypoints=noise(world, 1.5), extents=hidden)
    alone = world.register(keypoints=noise(world, 1.5))
    assert float(world.error(result).mean()) < 0.3 * float(world.error(alone).mean())
    assert float((result.extents_used == 16).double().mean()) > 0.9
    hidden[:, :8] = torch.nan
    unknown = world.register(keypoints=noise(world, 1.5), extents=hidden)
    assert (unknown.extents_used <= 16).all() and torch.isfinite(unknown.transl).all()


def test_masks(world: World) -> None:
    """Drawn silhouettes, at half the keypoints' resolution, with a speck and one cut off by the border."""
    half = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])
    rows = slice(0, 5)
    faces = load_hand_assets().faces
    placed = (world.vertices + world.position[:, None]).numpy()
    drawn = [mesh_silhouette(placed[i], faces, half @ world.K[i].numpy(), 320, 240) for i in range(5)]
    mask = torch.as_tensor(np.stack(drawn))
    mask[0, 5, 5] = True  # a speck far from the hand
    to_image = torch.tensor([[2, 0, 0.5], [0, 2, 0.5]]).double()
    extents = silhouette_extents(mask, directions(24), to_image)
    inside = ((world.keypoints[rows] > 20) & (world.keypoints[rows] < torch.tensor([620, 460]))).all(2).all(1)
    gap = (extents - world.extents[rows])[inside]
    assert inside.sum() >= 3 and float(gap.abs().max()) < 2.0 and abs(float(gap.mean())) < 0.25  # mask px are 2 px
    given = (world.vertices[rows], world.joints[rows], world.K[rows], noise(world, 4.0)[rows])
    both = register_mesh(*given, mask=mask, mask_to_image=to_image)
    alone = register_mesh(*given)
    errors = [(result.transl - world.position[rows]).norm(dim=1)[inside].mean() for result in (both, alone)]
    assert float(errors[0]) < 0.5 * float(errors[1])
    cut = mask[:1, :, : int(world.keypoints[0, :, 0].mean()) // 2]
    ends = silhouette_extents(cut, directions(24), to_image)
    assert torch.isnan(ends[0, 0]) and torch.isfinite(ends[0, 12])
    assert torch.isnan(silhouette_extents(torch.zeros(1, 8, 8), directions(4))).all()


def test_no_hand_depends_on_its_neighbours(world: World) -> None:
    keypoints, _ = with_outliers(world, 0.2)
    keypoints = keypoints + noise(world, 2.0) - world.keypoints
    extents = world.extents.clone()
    extents[::3] = torch.nan
    spoiled, bad = keypoints.clone(), world.vertices.clone()
    spoiled[1], bad[2] = torch.nan, torch.nan
    whole = world.register(keypoints=spoiled, vertices=bad, extents=extents)
    for i in (0, 3, 7, 22):
        one = register_mesh(
            world.vertices[i : i + 1],
            world.joints[i : i + 1],
            world.K[i : i + 1],
            keypoints[i : i + 1],
            extents=extents[i : i + 1],
        )
        torch.testing.assert_close(one.transl[0], whole.transl[i], atol=1e-9, rtol=0)
        assert one.status[0] == whole.status[i]


def test_what_cannot_be_registered_is_named(world: World) -> None:
    vertices, joints, K, keypoints = (v.clone() for v in (world.vertices, world.joints, world.K, world.keypoints))
    confidence = torch.ones(B, 21).double()
    keypoints[0, 3] = torch.nan
    keypoints[1] = 100.0
    confidence[2] = 0
    K[3] = 0
    K[4, 1, 1] = torch.nan
    vertices[5, 100] = torch.inf
    joints[6, 2] = torch.nan
    keypoints[7] = 2 * K[7, :2, 2] - keypoints[7]  # the image of a hand behind the camera
    confidence[8, 3:] = 0
    keypoints[8, 3:] = torch.nan  # unseen: may hold anything
    mask = torch.zeros(B, 12, 16)
    result = register_mesh(vertices, joints, K, keypoints, confidence, mask)
    expected = [
        Status.KEYPOINTS_NOT_FINITE,
        Status.KEYPOINTS_COINCIDE,
        Status.NO_KEYPOINTS,
        Status.BAD_INTRINSICS,
        Status.BAD_INTRINSICS,
        Status.BAD_PREDICTION,
        Status.BAD_PREDICTION,
        Status.BEHIND_CAMERA,
    ]
    assert result.status[:8].tolist() == expected
    assert usable(result.status[8:]).all()
    for name, value in vars(result).items():
        assert torch.isfinite(value).all(), name
    assert not result.inliers[:8].any() and (result.transl[:, 2] > 0).all()
    assert float(world.error(result)[8:].max()) < 1e-5
    empty = register_mesh(*(value[:0] for value in (vertices, joints, K, keypoints)))
    assert empty.transl.shape == (0, 3)


def test_shapes_are_checked(world: World) -> None:
    with pytest.raises(ValueError, match=r"keypoints has shape \(24, 20, 2\)"):
        world.register(keypoints=world.keypoints[:, :20])
    with pytest.raises(ValueError, match="not both"):
        world.register(extents=world.extents, mask=torch.zeros(B, 4, 4))


def test_float32_stays_float32(world: World) -> None:
    given = (value.float() for value in (world.vertices, world.joints, world.K, world.keypoints))
    result = register_mesh(*given)
    assert result.transl.dtype == torch.float32
    torch.testing.assert_close(result.transl, world.position.float(), atol=1e-4, rtol=0)


def test_gradient_against_finite_differences(world: World) -> None:
    seen = MeshObservations(
        world.joints,
        world.vertices,
        world.K,
        noise(world, 3.0),
        torch.full((B, 21), 0.2).double(),
        world.extents + 2 * torch.randn(B, 24, generator=torch.Generator().manual_seed(4)).double(),
        torch.full((B, 24), 0.5).double(),
        directions(24),
    )
    problem, position = RegistrationProblem(seen), world.position + 0.003
    gradient = problem.linearise({"position": position})["gradient"]
    for axis in range(3):
        step = torch.zeros(3).double()
        step[axis] = 1e-7
        ahead, behind = (problem.linearise({"position": position + sign * step})["cost"] for sign in (1, -1))
        torch.testing.assert_close((ahead - behind) / 2e-7, gradient[:, axis], rtol=1e-3, atol=1e-2)
