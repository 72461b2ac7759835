"""Who is in the synthetic set and how hands move in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from datasets.dex_ycb.splits import SUBJECTS
from datasets.synthetic.scene.motion import Motion, make_motion, minimum_jerk
from datasets.synthetic.scene.objects import CATALOGUE
from datasets.synthetic.scene.population import (
    sequence_name,
    sequence_object,
    sequence_side,
    subject_betas,
    subject_name,
)
from template import HandModel, load_hand_assets


@pytest.fixture(scope="module")
def hands() -> dict[str, HandModel]:
    return {side: HandModel(load_hand_assets(side=side), dtype=torch.float64) for side in ("right", "left")}


def _motion(hands: dict[str, HandModel], side: str, target: int, num_frames: int, seed: int = 0) -> Motion:
    generator = np.random.default_rng(seed)
    betas, habit = np.linspace(-1, 1, 10), np.zeros(6)
    return make_motion(generator, hands["right"], hands[side], betas, habit, target, num_frames)


def test_names_sort_in_the_order_of_the_subjects() -> None:
    names = [subject_name(number) for number in range(1, 301)]
    assert tuple(names[:10]) == SUBJECTS
    assert names == sorted(names) and len(set(names)) == 300
    assert names[10] == "20201101-subject-11" and names[99].endswith("-subject-100")
    sequences = [sequence_name(8, index) for index in range(100)]
    assert sequences == sorted(set(sequences))
    with pytest.raises(ValueError):
        subject_name(0)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_ten_subjects_fill_every_decile_of_every_component(seed: int) -> None:
    betas = np.stack([subject_betas(seed, subject) for subject in range(1, 11)])
    deciles = np.floor(norm.cdf(betas) * 10).astype(int)
    for component in range(10):
        assert sorted(deciles[:, component]) == list(range(10))
    assert not np.array_equal(betas[0], subject_betas(seed + 1, 1))


def test_further_subjects_are_plain_draws() -> None:
    betas = np.stack([subject_betas(0, subject) for subject in range(11, 511)])
    assert abs(betas.mean()) < 0.05 and abs(betas.std() - 1) < 0.05


def test_sides_and_objects_are_balanced() -> None:
    assert [sequence_side(index, 0.5) for index in range(4)] == ["right", "left", "right", "left"]
    assert {sequence_side(index, 0.0) for index in range(50)} == {"right"}
    assert {sequence_side(index, 1.0) for index in range(50)} == {"left"}
    count = len(CATALOGUE)
    for subject in (1, 12):
        assert sorted(sequence_object(3, subject, index, count) for index in range(count)) == list(range(count))


def test_minimum_jerk_starts_and_ends_at_rest() -> None:
    time = np.linspace(-0.5, 1.5, 2001)
    place = minimum_jerk(time, 0.0, 1.0)
    assert place[0] == 0 and place[-1] == 1 and (np.diff(place) >= 0).all()
    assert np.diff(place).max() / 0.001 == pytest.approx(15 / 8, rel=1e-3)


@pytest.mark.parametrize("target", range(len(CATALOGUE)))
def test_motion_is_smooth_above_the_table_and_holds_its_object(hands: dict[str, HandModel], target: int) -> None:
    motion = _motion(hands, "right", target, 90, seed=target)
    assert motion.vertices[..., 2].min() > 0
    assert np.linalg.norm(np.diff(motion.joints, axis=0), axis=-1).max() < 0.03  # metres in 1/90 of the story
    assert motion.present.mean() > 0.9
    item, poses = motion.objects[0], motion.object_poses[:, 0]
    assert item is CATALOGUE[target]
    assert poses[-1, 2, 3] - poses[0, 2, 3] > 0.05  # lifted
    np.testing.assert_allclose(poses[:50], np.broadcast_to(poses[0], (50, 4, 4)))  # stands until then
    local = (motion.vertices[-1] - poses[-1, :3, 3]) @ poses[-1, :3, :3]
    depth = item.inside_depth(local)
    assert -0.012 < depth.max() < 0.016  # fingers about touch; style noise may press in


def test_frames_only_sample_the_story(hands: dict[str, HandModel]) -> None:
    one, nine = _motion(hands, "right", 1, 1), _motion(hands, "right", 1, 9)
    np.testing.assert_allclose(one.vertices[0], nine.vertices[4], atol=1e-12)
    np.testing.assert_allclose(one.object_poses[0], nine.object_poses[4], atol=1e-12)


def test_left_is_the_mirrored_right(hands: dict[str, HandModel]) -> None:
    right, left = _motion(hands, "right", 4, 3), _motion(hands, "left", 4, 3)
    np.testing.assert_allclose(left.vertices, right.vertices * [-1, 1, 1], atol=1e-9)
    inner = [joint for joint in range(21) if joint != 12]  # manopth's middle tip is another vertex on the left
    np.testing.assert_allclose(left.joints[:, inner], right.joints[:, inner] * [-1, 1, 1], atol=1e-9)
    held = right.objects[0].mesh().vertices
    points = [held @ m.object_poses[-1, 0, :3, :3].T + m.object_poses[-1, 0, :3, 3] for m in (right, left)]
    mirrored = held * [-1, 1, 1] @ left.object_poses[-1, 0, :3, :3].T + left.object_poses[-1, 0, :3, 3]
    np.testing.assert_allclose(mirrored, points[0] * [-1, 1, 1], atol=1e-9)


@pytest.mark.parametrize("item", CATALOGUE, ids=lambda item: item.name)
def test_objects_are_mirror_images_of_themselves_with_outward_normals(item: object) -> None:
    mesh = item.mesh()
    assert np.abs(mesh.vertices).max(axis=0)[0] <= item.half_extents[0] + 1e-9
    rounded = {tuple(row) for row in np.round(mesh.vertices, 6) + 0.0}
    assert {tuple(row) for row in np.round(mesh.vertices * [-1, 1, 1], 6) + 0.0} == rounded
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-6)
    corners = mesh.vertices[mesh.faces]
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    agreement = np.einsum("fi,fi->f", areas, mesh.normals[mesh.faces].mean(axis=1))
    assert (agreement > -1e-12).all() or (agreement < 1e-12).all()
