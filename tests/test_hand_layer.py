"""The hand layer against a slow float64 loop written from the SMPL and MANO equations."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from random_assets import random_assets
from scipy.spatial.transform import Rotation

from src.models.cmr.rest_mesh import RestMesh
from src.models.paper_mano import turned
from template import (
    HandAssets,
    HandModel,
    axis_angle_to_pose,
    load_hand_assets,
    mirror_assets,
    mirror_pose,
    pca_to_pose,
    pose_to_pca,
)
from template.cmr_assets import load_hierarchy
from template.few_hands import MOST
from template.large_products import full_precision
from template.pose import pose_to_axis_angle
from utils.joints import JOINT_NAMES, MANO_PARENTS, MANO_TO_STANDARD, TIP_VERTICES, tip_vertices

RIGHT = random_assets(seed=3)
LEFT = mirror_assets(RIGHT)
#: Whose joints have a way of their own without the mesh (`template.fast_joints`).
OWN_FINGER = random_assets(seed=7, tips_on_own_finger=True)


def reference(
    assets: HandAssets, axis_angle: np.ndarray, betas: np.ndarray, transl: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One hand, joint by joint and vertex by vertex: vertices (778, 3), kinematic and regressed joints (16, 3)."""
    rotations = Rotation.from_rotvec(axis_angle.reshape(16, 3)).as_matrix()
    shaped = assets.v_template + assets.shapedirs @ betas
    rest_joints = assets.J_regressor @ shaped
    feature = np.concatenate([(rotation - np.eye(3)).ravel() for rotation in rotations[1:]])
    unposed = shaped + assets.posedirs @ feature
    world, from_rest = [], []
    for joint, parent in enumerate(MANO_PARENTS):
        local, to_rest = np.eye(4), np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = rest_joints[joint] - (rest_joints[parent] if parent >= 0 else 0)
        to_rest[:3, 3] = -rest_joints[joint]
        world.append(local if parent < 0 else world[parent] @ local)
        from_rest.append(world[joint] @ to_rest)
    vertices = np.zeros((778, 3))
    for vertex in range(778):
        blended = sum(assets.weights[vertex, joint] * from_rest[joint] for joint in range(16))
        vertices[vertex] = (blended @ [*unposed[vertex], 1.0])[:3] + transl
    return vertices, np.array([matrix[:3, 3] for matrix in world]) + transl, assets.J_regressor @ vertices


def random_input(batch: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    axis_angle = torch.randn(batch, 48, generator=generator, dtype=torch.float64) * 0.7
    betas = torch.randn(batch, 10, generator=generator, dtype=torch.float64)
    transl = torch.randn(batch, 3, generator=generator, dtype=torch.float64)
    return axis_angle_to_pose(axis_angle).to(dtype), betas.to(dtype), transl.to(dtype)


@pytest.mark.parametrize(
    ("assets", "most"),
    [(RIGHT, MOST), (LEFT, MOST), (OWN_FINGER, 0), (mirror_assets(OWN_FINGER), 0)],
    ids=["right", "left", "many with tips on their own finger", "left ones of these"],
)
@pytest.mark.parametrize("tips", sorted(TIP_VERTICES))
def test_values_equal_the_slow_loop(assets: HandAssets, most: int, tips: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("template.layer.MOST", most)
    rng = np.random.default_rng(1)
    axis_angle, betas, transl = rng.normal(size=(2, 48)) * 0.7, rng.normal(size=(2, 10)), rng.normal(size=(2, 3))
    expected = [reference(assets, *row) for row in zip(axis_angle, betas, transl, strict=True)]
    pose = axis_angle_to_pose(torch.tensor(axis_angle))
    for joint_type, which in (("kinematic", 1), ("regressed", 2)):
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
            model = HandModel(assets, tips=tips, joint_type=joint_type, dtype=dtype)
            assert most or joint_type == "regressed" or model.joint_tables is not None
            arguments = pose.to(dtype), torch.tensor(betas).to(dtype), torch.tensor(transl).to(dtype)
            output = model(*arguments)
            for row, (vertices, *joints) in enumerate(expected):
                with_tips = np.concatenate([joints[which - 1], vertices[list(tip_vertices(tips, assets.side))]])
                standard = with_tips[list(MANO_TO_STANDARD)]
                np.testing.assert_allclose(output.vertices[row], vertices, atol=tolerance, rtol=0)
                np.testing.assert_allclose(output.joints[row], standard, atol=tolerance, rtol=0)
                np.testing.assert_allclose(model.joints(*arguments)[row], standard, atol=tolerance, rtol=0)
                np.testing.assert_allclose(output.transforms[row, :, :, 3], expected[row][1], atol=tolerance, rtol=0)
                rotated = Rotation.from_rotvec(axis_angle[row, :3]).as_matrix()
                np.testing.assert_allclose(output.transforms[row, 0, :, :3], rotated, atol=tolerance, rtol=0)


@pytest.mark.parametrize("add_mean", [True, False])
@pytest.mark.parametrize("assets", [RIGHT, LEFT], ids=["right", "left"])
def test_pca_pose_equals_the_slow_loop(assets: HandAssets, add_mean: bool) -> None:
    rng = np.random.default_rng(2)
    orient, coefficients, betas = rng.normal(size=3), rng.normal(size=45) * 0.5, rng.normal(size=10)
    fingers = assets.hands_mean * add_mean + coefficients @ assets.hands_components
    vertices, _, _ = reference(assets, np.concatenate([orient, fingers]), betas, np.zeros(3))
    model = HandModel(assets, dtype=torch.float64)
    pose = pca_to_pose(model, torch.tensor(orient)[None], torch.tensor(coefficients)[None], add_mean=add_mean)
    np.testing.assert_allclose(model(pose, torch.tensor(betas)[None]).vertices[0], vertices, atol=1e-12)


@pytest.mark.parametrize("assets", [RIGHT, LEFT], ids=["right", "left"])
def test_gradient_equals_finite_differences_of_the_slow_loop(assets: HandAssets) -> None:
    rng = np.random.default_rng(4)
    point = np.concatenate([rng.normal(size=48) * 0.7, rng.normal(size=13)])
    on_vertices, on_joints = rng.normal(size=(778, 3)), rng.normal(size=(21, 3))

    def slow(values: np.ndarray) -> float:
        vertices, joints, _ = reference(assets, values[:48], values[48:58], values[58:])
        with_tips = np.concatenate([joints, vertices[list(tip_vertices("manopth", assets.side))]])
        return float((vertices * on_vertices).sum() + (with_tips[list(MANO_TO_STANDARD)] * on_joints).sum())

    leaf = torch.tensor(point, requires_grad=True)
    model = HandModel(assets, dtype=torch.float64)
    output = model(axis_angle_to_pose(leaf[None, :48]), leaf[None, 48:58], leaf[None, 58:])
    ((output.vertices * torch.tensor(on_vertices)).sum() + (output.joints * torch.tensor(on_joints)).sum()).backward()
    step = 1e-5
    for entry in (0, 2, 3, 7, 11, 20, 33, 47, 48, 53, 57, 58, 60):
        shifted = np.zeros(61)
        shifted[entry] = step
        slope = (slow(point + shifted) - slow(point - shifted)) / (2 * step)
        assert leaf.grad[entry].item() == pytest.approx(slope, rel=1e-6, abs=1e-7), entry


@pytest.mark.parametrize("joint_type", ["kinematic", "regressed"])
@pytest.mark.parametrize("path", ["vertices", "joints", "rest_joints", "transforms", "joints_only"])
@pytest.mark.parametrize("most", [MOST, 0], ids=["few", "many"])
def test_gradcheck(joint_type: str, path: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("template.layer.MOST", most)
    model = HandModel(RIGHT, joint_type=joint_type, dtype=torch.float64)

    def function(*arguments: torch.Tensor) -> torch.Tensor:
        if path == "joints_only":
            return model.joints(*arguments)
        output = getattr(model(*arguments), path)
        return output[:, ::97] if path == "vertices" else output

    arguments = tuple(value.requires_grad_() for value in random_input(2))
    assert torch.autograd.gradcheck(function, arguments, fast_mode=True)
    assert torch.autograd.gradcheck(function, arguments[:2], fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, MOST, MOST + 1, 130])  # both sides of the switch; 130 spans several chunks
@pytest.mark.parametrize("joint_type", ["kinematic", "regressed"])
def test_fast_path_equals_plain_path(joint_type: str, batch: int, dtype: torch.dtype) -> None:
    results = []
    for plain in (False, True):
        model = HandModel(RIGHT, joint_type=joint_type, dtype=dtype, plain=plain)
        arguments = [value.requires_grad_() for value in random_input(batch, dtype)]
        generator = torch.Generator().manual_seed(5)
        outputs = [*model(*arguments), model.joints(*arguments)]
        loss = sum((value * torch.randn(value.shape, generator=generator, dtype=dtype)).sum() for value in outputs)
        results.append([*outputs, *torch.autograd.grad(loss, arguments)])
    for fast, plain in zip(*results, strict=True):
        scale = plain.detach().abs().max()
        assert (fast - plain).abs().max() <= (3e-6 if dtype == torch.float32 else 1e-13) * scale


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_products_by_onednn_are_the_same_hand(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr("template.large_products.mkl_is_slow", lambda: True)
    monkeypatch.setattr("template.large_products.FEWEST", 1)
    monkeypatch.setattr("template.fast_skinning.MOST", 56)  # 100 hands are two products
    made = []
    monkeypatch.setattr(
        torch.Tensor, "to_mkldnn", lambda value, own=torch.Tensor.to_mkldnn: made.append(1) or own(value)
    )
    model, exact = HandModel(RIGHT), HandModel(RIGHT, plain=True, dtype=torch.float64)
    arguments = [value.requires_grad_() for value in random_input(100, torch.float32)]
    doubles = [value.detach().double().requires_grad_() for value in arguments]
    cotangent = torch.randn(100, 778, 3, generator=torch.Generator().manual_seed(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)  # what a training script asks of its network's products
    try:
        vertices = model(*arguments).vertices
        gradients = torch.autograd.grad(vertices, arguments, cotangent)
        unkept = model(*(value.detach() for value in arguments)).vertices
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(made) == 3 + 2 * 2 + 2 * 3  # forward all at once, backward and forward without it in two parts
    expected = exact(*doubles).vertices
    wanted = torch.autograd.grad(expected, doubles, cotangent.double())
    for found, right in zip((vertices, unkept, *gradients), (expected, expected, *wanted), strict=True):
        assert (found - right).abs().max() <= 3e-6 * right.abs().max()


@pytest.mark.parametrize("device", ["cpu", "cuda"])  # settings alone: no GPU is needed
def test_the_setting_of_products_is_restored(device: str) -> None:
    products = {"cpu": torch.backends.mkldnn.matmul, "cuda": torch.backends.cuda.matmul}[device]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        asked = products.fp32_precision
        with pytest.raises(KeyError), full_precision(torch.device(device)):
            assert asked not in ("none", "ieee") and products.fp32_precision == "ieee"
            raise KeyError
        assert products.fp32_precision == asked and torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("batch", [2, 130])  # 130 spans several chunks
@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_gradients_of_one_argument_alone(wanted: tuple[bool, ...], batch: int) -> None:
    model = HandModel(RIGHT, dtype=torch.float64)

    def gradient(needs: tuple[bool, ...]) -> list[torch.Tensor]:
        arguments = [value.requires_grad_(need) for value, need in zip(random_input(batch), needs, strict=True)]
        output = model(*arguments)
        joints = model.joints(*arguments)
        (output.vertices.square().sum() + output.joints.sin().sum() + joints.square().sum()).backward()
        return [value.grad for value in arguments]

    both = gradient((True, True, True))
    for need, alone, together in zip(wanted, gradient(wanted), both, strict=True):
        assert (alone is not None) == need
        if need:
            torch.testing.assert_close(alone, together)


@pytest.mark.parametrize("batch", [2, MOST + 1])
def test_a_changed_output_is_not_differentiated_wrongly(batch: int) -> None:
    output = HandModel(RIGHT)(*(value.requires_grad_() for value in random_input(batch, torch.float32)))
    with torch.no_grad():
        output.transforms.zero_()  # which the backward pass would read
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.vertices.sum().backward()


def test_no_translation_equals_zero_translation() -> None:
    model = HandModel(RIGHT)
    pose, betas, _ = random_input(2, torch.float32)
    without, zero = model(pose, betas), model(pose, betas, torch.zeros(2, 3))
    for first, second in zip(without, zero, strict=True):
        assert torch.equal(first, second)
    assert torch.equal(model.joints(pose, betas), model.joints(pose, betas, torch.zeros(2, 3)))


def test_a_hand_does_not_depend_on_its_neighbours() -> None:
    model = HandModel(RIGHT, dtype=torch.float64)
    arguments = random_input(70)
    whole = model(*arguments).vertices
    torch.testing.assert_close(model(*(value[64:65] for value in arguments)).vertices[0], whole[64], atol=1e-15, rtol=0)


@pytest.mark.parametrize("joint_type", ["kinematic", "regressed"])
def test_an_empty_batch_is_allowed(joint_type: str) -> None:
    model = HandModel(RIGHT, joint_type=joint_type)
    arguments = [value.requires_grad_() for value in random_input(0, torch.float32)]
    output = model(*arguments)
    assert output.vertices.shape == (0, 778, 3) and output.joints.shape == (0, 21, 3)
    (output.vertices.sum() + model.joints(*arguments).sum()).backward()
    assert arguments[0].grad.shape == (0, 16, 3, 3)


def test_shared_betas_and_strided_pose_are_allowed() -> None:
    model = HandModel(RIGHT, dtype=torch.float64)
    pose, betas, transl = random_input(3)
    betas = betas[:1].requires_grad_()
    strided = pose.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    model(strided, betas.expand(3, 10), transl).vertices.sin().sum().backward()
    single = [
        torch.autograd.grad(model(pose[row : row + 1], betas, transl[row : row + 1]).vertices.sin().sum(), betas)[0]
        for row in range(3)
    ]
    torch.testing.assert_close(betas.grad, sum(single))


def test_wrist_is_rest_wrist_plus_translation() -> None:
    model = HandModel(RIGHT, dtype=torch.float64)
    pose, betas, transl = random_input(4)
    wrist = model(pose, betas, transl).joints[:, JOINT_NAMES.index("wrist")]
    torch.testing.assert_close(wrist, model.rest_joints(betas)[:, 0] + transl)


def test_rest_equals_identity_pose() -> None:
    model = HandModel(RIGHT, dtype=torch.float64)
    _, betas, _ = random_input(3)
    output = model(torch.eye(3, dtype=torch.float64).expand(3, 16, 3, 3), betas)
    torch.testing.assert_close(model.rest(betas), output.vertices)
    torch.testing.assert_close(model.rest_joints(betas), output.rest_joints)


def test_left_hand_is_the_mirror_image() -> None:
    pose, betas, transl = random_input(3)
    flip = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    right = HandModel(RIGHT, tips="freihand", dtype=torch.float64)(pose, betas, transl)
    left = HandModel(LEFT, tips="freihand", dtype=torch.float64)(mirror_pose(pose), betas, transl * flip)
    torch.testing.assert_close(left.vertices, right.vertices * flip)
    torch.testing.assert_close(left.joints, right.joints * flip)
    orient, coefficients = pose_to_pca(RIGHT, pose)
    mirrored = pca_to_pose(LEFT, orient * torch.tensor([1.0, -1.0, -1.0]), coefficients)
    torch.testing.assert_close(mirrored, mirror_pose(pose))


@pytest.mark.parametrize("subtract_mean", [True, False])
def test_pose_converters_invert_each_other(subtract_mean: bool) -> None:
    pose, _, _ = random_input(5)
    pose = axis_angle_to_pose(pose_to_axis_angle(pose))
    orient, coefficients = pose_to_pca(RIGHT, pose, subtract_mean=subtract_mean)
    torch.testing.assert_close(pca_to_pose(RIGHT, orient, coefficients, add_mean=subtract_mean), pose)
    with pytest.raises(ValueError, match="46 PCA coefficients"):
        pca_to_pose(RIGHT, torch.zeros(1, 3), torch.zeros(1, 46))
    arrays = orient.numpy(), coefficients.numpy()
    torch.testing.assert_close(pca_to_pose(RIGHT, *arrays, add_mean=subtract_mean), pose)


def test_converters_take_whole_numbers_and_name_other_shapes() -> None:
    orient, whole = torch.zeros(1, 3), torch.arange(45)[None] % 3 - 1
    torch.testing.assert_close(pca_to_pose(RIGHT, orient.int(), whole), pca_to_pose(RIGHT, orient, whole.float()))
    flat = torch.eye(3).expand(1, 16, 3, 3)
    torch.testing.assert_close(axis_angle_to_pose(np.zeros((1, 48), int)), flat)
    torch.testing.assert_close(pose_to_axis_angle(flat.int()), torch.zeros(1, 48))
    for shape in ((2, 45), (2, 16, 3), ()):
        with pytest.raises(ValueError, match=rf"axis_angle has shape {re.escape(str(shape))}, expected \(..., 48\)"):
            axis_angle_to_pose(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"pose has shape \(2, 48\), expected \(..., 16, 3, 3\)"):
        pose_to_axis_angle(torch.zeros(2, 48))


def test_fewer_pca_coefficients_are_the_leading_ones() -> None:
    orient, coefficients = torch.zeros(1, 3), torch.randn(1, 12, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([coefficients, torch.zeros(1, 33)], dim=1)
    torch.testing.assert_close(pca_to_pose(RIGHT, orient, coefficients), pca_to_pose(RIGHT, orient, padded))


def test_autocast_does_not_lower_the_precision() -> None:
    model = HandModel(RIGHT)
    arguments = [value.requires_grad_() for value in random_input(2, torch.float32)]
    model(*arguments).vertices.square().sum().backward()
    expected = [value.grad.clone() for value in arguments]
    vertices = model(*arguments).vertices.detach()
    for value in arguments:
        value.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*arguments)
        assert torch.equal(output.vertices, vertices)
        output.vertices.square().sum().backward()
    for value, gradient in zip(arguments, expected, strict=True):
        torch.testing.assert_close(value.grad, gradient)
    halves = [value.detach().bfloat16() for value in arguments]
    assert model(*halves).joints.dtype == torch.float32


def geometry_in_networks() -> dict[str, Callable[[], torch.Tensor]]:
    """Lengths, rotations and pixels that are computed where autocast may be on."""
    pose, betas, _ = random_input(2, torch.float32)
    model = HandModel(RIGHT)
    rest = RestMesh(load_hierarchy(load_hand_assets()))
    six = pose[..., :2].transpose(-1, -2).flatten(1)
    return {
        "rest": lambda: model.rest(betas),
        "rest_joints": lambda: model.rest_joints(betas),
        "plain": lambda: HandModel(RIGHT, plain=True)(pose, betas).vertices,
        "regressed": lambda: HandModel(RIGHT, joint_type="regressed").joints(pose, betas),
        "mesh at its levels": lambda: rest.levels(rest.hand.rest(betas))[0],
        "rotation update": lambda: turned(six, six.flip(0)),
    }


@pytest.mark.parametrize("name", sorted(geometry_in_networks()))
def test_geometry_is_not_rounded_under_autocast(name: str) -> None:
    function = geometry_in_networks()[name]
    expected = function()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = function()
    assert torch.equal(found, expected)


def test_a_checkpoint_never_carries_the_hand() -> None:
    assert not HandModel(RIGHT).state_dict()


def test_wrong_input_is_named() -> None:
    model = HandModel(RIGHT)
    pose, betas, transl = random_input(2, torch.float32)
    with pytest.raises(ValueError, match=r"pose has shape \(2, 48\), expected \(B, 16, 3, 3\)"):
        model(torch.zeros(2, 48), betas, transl)
    with pytest.raises(ValueError, match=r"betas has shape \(1, 10\), expected \(2, 10\)"):
        model.joints(pose, betas[:1], transl)
    with pytest.raises(ValueError, match=r"transl has shape \(2, 2\)"):
        model(pose, betas, transl[:, :2])
    with pytest.raises(ValueError, match="float64"):
        model(pose.double(), betas, transl)
    with pytest.raises(ValueError, match="joint_type is 'posed'"):
        HandModel(RIGHT, joint_type="posed")
    with pytest.raises(ValueError, match="tip set 'mine'"):
        HandModel(RIGHT, tips="mine")
    with pytest.raises(ValueError, match=r"expected \(B, 16, 3, 3\)"):
        model(torch.zeros(()), betas, transl)


def test_a_double_layer_takes_whatever_is_less() -> None:
    pose, betas, _ = random_input(2, torch.float64)
    model = HandModel(RIGHT, dtype=torch.float64)
    mixed = model(pose, betas.float()).vertices
    torch.testing.assert_close(mixed, model(pose, betas.float().double()).vertices, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_few_hands_of_half_precision(dtype: torch.dtype) -> None:
    """NumPy has no bfloat16: such a layer goes another way, whatever the number of hands."""
    pose, betas, transl = random_input(3, torch.float32)
    found = HandModel(RIGHT, dtype=dtype)(pose.to(dtype), betas.to(dtype), transl.to(dtype))
    assert found.vertices.dtype == dtype
    torch.testing.assert_close(
        found.vertices.float(), HandModel(RIGHT)(pose, betas, transl).vertices, rtol=0, atol=0.03
    )


def test_few_hands_of_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        assert HandModel(RIGHT)(torch.empty(2, 16, 3, 3), torch.empty(2, 10)).vertices.shape == (2, 778, 3)
