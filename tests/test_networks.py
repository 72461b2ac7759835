"""Networks of the fair recipe: shapes, gradients, the zero start of the shape path, geometry, losses."""

from __future__ import annotations

import itertools
import math

import pytest
import roma
import torch

from src.models import MODELS, build_model
from src.models.heatmaps import decode_heatmaps, heatmap_loss
from src.models.losses import edge_length_loss, normal_loss, ranking_loss
from template import mirror_pose
from utils.camera import crop_geometry, project, ray_rotation
from utils.rotations import matrix_to_rotation_6d, rotation_6d_to_matrix

SIZE = 64
K = torch.tensor([[[150.0, 0, 10.0], [0, 150.0, 55.0], [0, 0, 1]]])


def build(name: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(name, backbone="mobilenet_v3_small", **options).eval()


@pytest.mark.parametrize("name", ["mano_baseline", "mano_baseline_conf", "mano_identity", "pose_2d"])
def test_outputs_and_gradients(name: str) -> None:
    model = build(name)
    image = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    output = model(image, betas=torch.randn(2, 10), K=K.expand(2, 3, 3))
    assert output["keypoints_2d"].shape == (2, 21, 2)
    assert 0 < output["keypoint_confidence"].min() and output["keypoint_confidence"].max() <= 1
    if name != "pose_2d":
        assert output["pose"].shape == (2, 16, 3, 3) and output["betas"].shape == (2, 10)
        identity = output["pose"] @ output["pose"].transpose(-1, -2)
        assert torch.allclose(identity, torch.eye(3).expand_as(identity), atol=1e-4)
        assert ("confidence" in output) == name.endswith("conf")
    scalar = sum(value.float().sum() for value in output.values() if value.requires_grad)
    scalar.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert not silent


@pytest.mark.parametrize("name", [name for name in MODELS if name != "hand_detector"])
def test_no_hands_are_allowed(name: str) -> None:
    model = build_model(name, "fair").eval()
    output = model(torch.zeros(0, 3, 96, 96), betas=torch.zeros(0, 10), K=K.expand(0, 3, 3))
    arrays = [value for value in output.values() if isinstance(value, torch.Tensor)]
    assert arrays and all(len(value) == 0 for value in arrays)


def test_identity_begins_as_the_baseline() -> None:
    baseline, identity = build("mano_baseline"), build("mano_identity")
    shared = baseline.state_dict()
    identity.load_state_dict({name: shared.get(name, value) for name, value in identity.state_dict().items()})
    image = torch.rand(2, 3, SIZE, SIZE)
    first = identity(image, betas=torch.randn(2, 10), K=K.expand(2, 3, 3))["pose"]
    assert torch.equal(first, baseline(image, K=K.expand(2, 3, 3))["pose"])
    with torch.no_grad():
        identity.pose.steps[0].shape[2].weight.normal_(std=0.1)
    assert not torch.allclose(identity(image, betas=torch.randn(2, 10), K=K.expand(2, 3, 3))["pose"], first)


def test_what_is_missing_is_said() -> None:
    image = torch.zeros(1, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match="betas"):
        build("mano_identity")(image, K=K)
    with pytest.raises(ValueError, match="crop's K"):
        build("mano_baseline")(image)
    with pytest.raises(ValueError, match="mano_baseline"):
        build_model("nonsense")
    with pytest.raises(ValueError, match="backbone 'vgg'"):
        build_model("pose_2d", backbone="vgg")
    assert {"mano_baseline", "mano_baseline_conf", "mano_identity", "pose_2d"} <= set(MODELS)


def test_six_d_is_rows_and_inverts() -> None:
    matrix = roma.rotvec_to_rotmat(torch.randn(50, 3, dtype=torch.float64))
    six = matrix_to_rotation_6d(matrix)
    assert torch.equal(six[:, :3], matrix[:, 0]) and torch.equal(six[:, 3:], matrix[:, 1])
    assert torch.allclose(rotation_6d_to_matrix(six), matrix, atol=1e-12)
    skewed = rotation_6d_to_matrix(six * 3 + 0.1)
    assert torch.allclose(torch.linalg.det(skewed), torch.ones(50, dtype=torch.float64))


def test_mirror_negates_y_and_z_of_axis_angle() -> None:
    vector = torch.randn(20, 3, dtype=torch.float64)
    mirrored = roma.rotvec_to_rotmat(vector * torch.tensor([1.0, -1, -1], dtype=torch.float64))
    assert torch.allclose(mirror_pose(roma.rotvec_to_rotmat(vector)), mirrored, atol=1e-12)


def test_ray_rotation_takes_the_axis_to_the_crop_centre() -> None:
    rotation = ray_rotation(K, SIZE)
    point = rotation[:, :, 2][:, None] * 0.8  # on the rotated optical axis
    assert torch.allclose(project(point, K)[0, 0], torch.full((2,), (SIZE - 1) / 2), atol=1e-3)
    angle = math.acos((float(torch.diagonal(rotation[0]).sum()) - 1) / 2)
    ray = torch.linalg.solve(K[0], torch.tensor([31.5, 31.5, 1.0]))
    assert angle == pytest.approx(math.acos(float(ray[2] / ray.norm())), abs=1e-5)  # smallest rotation


def test_crop_geometry_does_not_depend_on_resolution() -> None:
    # Twice the pixels over the same field: pixel centres sit at integers, so c' = 2 c + 0.5.
    double = K.clone()
    double[:, :2] *= 2
    double[:, :2, 2] += 0.5
    assert torch.allclose(crop_geometry(K, SIZE), crop_geometry(double, 2 * SIZE), atol=1e-5)


def test_heatmaps_decode_in_full_precision_under_autocast() -> None:
    """In bf16 the expectation over cells would round positions beyond 64 px to half pixels."""
    logits = 3 * torch.randn(2, 21, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        keypoints = decode_heatmaps(logits, SIZE).keypoints_2d
    torch.testing.assert_close(keypoints, decode_heatmaps(logits, SIZE).keypoints_2d, rtol=0, atol=0)


def test_heatmaps_decode_to_sub_pixel_positions() -> None:
    truth = torch.tensor([[[20.3, 33.7], [14.0, 44.25]]])
    cells = SIZE // 4
    centres = (torch.arange(cells) + 0.5) * 4 - 0.5
    logits = (
        -0.5
        * (
            (centres[None, None, None, :] - truth[..., 0, None, None]) ** 2
            + (centres[None, None, :, None] - truth[..., 1, None, None]) ** 2
        )
        / 16
    )
    decoded = decode_heatmaps(logits, SIZE)
    assert torch.allclose(decoded.keypoints_2d, truth, atol=0.05)
    assert torch.allclose(decoded.confidence, torch.ones(1, 2), atol=0.1)
    flat = decode_heatmaps(torch.zeros_like(logits), SIZE)
    assert flat.confidence.max() < 0.1
    assert heatmap_loss(logits, truth, SIZE) < heatmap_loss(logits, truth + 6, SIZE)
    outside = torch.full_like(truth, -30.0)
    assert float(heatmap_loss(logits, outside, SIZE)) == 0.0


def test_ranking_loss_against_a_slow_loop() -> None:
    torch.manual_seed(1)
    confidence, error = torch.randn(9), torch.rand(9)
    error[3] = error[4]  # a tie
    gaps = []
    for i, j in itertools.combinations(range(9), 2):
        if error[i] != error[j]:
            better, worse = (i, j) if error[i] < error[j] else (j, i)
            gaps.append(float(confidence[better] - confidence[worse]))
    loss, accuracy = ranking_loss(confidence, error)
    assert float(loss) == pytest.approx(sum(max(0.0, 1 - gap) for gap in gaps) / len(gaps), abs=1e-6)
    assert float(accuracy) == pytest.approx(sum(gap > 0 for gap in gaps) / len(gaps), abs=1e-6)
    single, nothing = ranking_loss(confidence[:1], error[:1])
    assert float(single) == 0.0 and math.isnan(float(nothing))


def test_mesh_terms_against_a_slow_loop() -> None:
    torch.manual_seed(2)
    predicted, target = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    faces = torch.tensor([[0, 1, 2], [2, 3, 4]])
    cosines, lengths = [], []
    for b, face in itertools.product(range(2), faces.tolist()):
        t = target[b]
        normal = torch.linalg.cross(t[face[1]] - t[face[0]], t[face[2]] - t[face[0]])
        for i in range(3):
            a, c = face[i], face[(i + 1) % 3]
            edge, true = predicted[b, c] - predicted[b, a], t[c] - t[a]
            cosines.append(float((edge @ normal).abs() / edge.norm() / normal.norm()))
            lengths.append(float((edge.norm() - true.norm()).abs()))
    assert float(normal_loss(predicted, target, faces)) == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)
    assert float(edge_length_loss(predicted, target, faces)) == pytest.approx(sum(lengths) / len(lengths), abs=1e-5)
    assert float(normal_loss(target, target, faces)) < 1e-6
