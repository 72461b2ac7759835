"""Metrics against slow loops written from docs/facts.md 2.1 and 3.4, and against cases done by hand."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from src.evaluation import metrics
from src.evaluation.alignment import EPSILON_DEXYCB, procrustes_align, scale_translation_align
from src.evaluation.bootstrap import paired_bootstrap
from src.evaluation.metrics import auc, evaluate_predictions, f_scores
from src.evaluation.official import dexycb_scores, list_scores
from src.evaluation.shape import bone_lengths, zero_pose_mpvpe


def hands(n: int = 7, points: int = 21, seed: int = 0, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(scale=0.04, size=(n, points, 3)) + [0.05, -0.1, 0.8]
    return truth + rng.normal(scale=noise, size=truth.shape) + [0.01, 0.0, 0.03], truth


def slow_align(predicted: np.ndarray, truth: np.ndarray, epsilon: float = 1e-8) -> np.ndarray:
    """One sample, as docs/facts.md 2.1 words it, with SciPy's solver."""
    target, moving = truth - truth.mean(0), predicted - predicted.mean(0)
    target_norm, moving_norm = np.linalg.norm(target) + epsilon, np.linalg.norm(moving) + epsilon
    rotation, scale = orthogonal_procrustes(target / target_norm, moving / moving_norm)
    return (moving / moving_norm) @ rotation.T * scale * target_norm + truth.mean(0)


def slow_error(predicted: np.ndarray, truth: np.ndarray) -> list[float]:
    return [math.dist(p, t) for p, t in zip(predicted.tolist(), truth.tolist())]


def slow_auc(errors: list[float]) -> float:
    thresholds = np.linspace(0, 0.05, 100).tolist()
    curve = [sum(error <= threshold for error in errors) / len(errors) for threshold in thresholds]
    return sum((a + b) / 2 for a, b in zip(curve, curve[1:])) / 99


def slow_f(predicted: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    recall = sum(min(math.dist(t, p) for p in predicted) < threshold for t in truth) / len(truth)
    precision = sum(min(math.dist(t, p) for t in truth) < threshold for p in predicted) / len(predicted)
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0


def test_procrustes_equals_scipy_one_by_one() -> None:
    predicted, truth = hands()
    aligned = procrustes_align(predicted, truth)
    for row in range(len(truth)):
        np.testing.assert_allclose(aligned[row], slow_align(predicted[row], truth[row]), atol=1e-13)


def test_mirrored_turned_and_scaled_prediction_has_no_aligned_error() -> None:
    truth = hands()[1]
    turn = Rotation.from_rotvec([0.4, -2.0, 1.0]).as_matrix()
    for mirror in (1.0, -1.0):
        predicted = 1.7 * (truth * [mirror, 1, 1]) @ turn.T + [3.0, -2.0, 1.0]
        assert np.abs(procrustes_align(predicted, truth) - truth).max() < 1e-7


def test_all_zero_prediction_lands_on_the_centroid() -> None:
    truth = hands()[1]
    aligned = procrustes_align(np.zeros_like(truth), truth)
    np.testing.assert_allclose(aligned, np.broadcast_to(truth.mean(1, keepdims=True), truth.shape), atol=1e-15)


def test_alignment_leaves_its_arguments_alone() -> None:
    predicted, truth = hands()
    copies = predicted.copy(), truth.copy()
    procrustes_align(predicted, truth)
    scale_translation_align(predicted, truth)
    np.testing.assert_array_equal(predicted, copies[0])
    np.testing.assert_array_equal(truth, copies[1])


def test_epsilon_matters_at_the_promised_precision() -> None:
    """A millimetre evaluator's 1e-8 is our 1e-11; the metre one would miss it by more than 1e-6 mm."""
    predicted, truth = hands(noise=0.0005)
    in_millimetres = slow_align(predicted[0] * 1000, truth[0] * 1000)
    ours = procrustes_align(predicted[:1], truth[:1], EPSILON_DEXYCB)[0] * 1000
    np.testing.assert_allclose(ours, in_millimetres, atol=1e-9)
    assert np.abs(procrustes_align(predicted[:1], truth[:1])[0] * 1000 - in_millimetres).max() > 1e-6


def test_scale_translation_uses_the_middle_finger_bone() -> None:
    predicted, truth = hands(2)
    aligned = scale_translation_align(predicted, truth)
    for row in range(2):
        scale = math.dist(truth[row, 9], truth[row, 0]) / math.dist(predicted[row, 9], predicted[row, 0])
        for joint in range(21):
            expected = (predicted[row, joint] - predicted[row, 0]) * scale + truth[row, 0]
            np.testing.assert_allclose(aligned[row, joint], expected, atol=1e-15)
    assert np.isfinite(scale_translation_align(np.zeros_like(truth), truth)).all()


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([0.0], 1.0),  # right at every threshold
        ([0.05], 0.5 / 99),  # <= : only the last threshold, half a trapezoid
        ([0.0500001], 0.0),
        ([0.025], 49.5 / 99),  # thresholds 50 .. 99 (25.25 mm up): 49 whole steps and half a one
        ([0.0, 1.0], 0.5),
    ],
)
def test_auc_by_hand(errors: list[float], expected: float) -> None:
    assert auc(np.array(errors)) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 0.08), min_size=1, max_size=30))
def test_auc_equals_the_slow_trapezoid(errors: list[float]) -> None:
    assert auc(np.array(errors)) == pytest.approx(slow_auc(errors), abs=1e-12)


def test_auc_is_the_mean_of_per_joint_aucs() -> None:
    errors = np.abs(np.random.default_rng(2).normal(scale=0.03, size=(50, 21)))
    assert auc(errors) == pytest.approx(np.mean([slow_auc(errors[:, joint].tolist()) for joint in range(21)]))


def test_f_score_against_all_pairs_and_by_hand() -> None:
    predicted, truth = hands(3, points=60, noise=0.004)
    ours = f_scores(predicted, truth, [0.005, 0.015])
    for row in range(3):
        expected = [slow_f(predicted[row], truth[row], threshold) for threshold in (0.005, 0.015)]
        np.testing.assert_allclose(ours[row], expected, atol=1e-12)
    line = np.array([[[0.0, 0, 0], [1.0, 0, 0]]])
    assert f_scores(line + [0.25, 0, 0], line, [0.25]) == 0.0  # strict <, ...
    near = np.array([[[0.0, 0, 0], [0.25, 0, 0]]])
    assert f_scores(near, near[:, :1], [0.25]) == pytest.approx(2 * 0.5 * 1.0 / 1.5)  # ... of predicted points
    assert f_scores(near[:, :1], near, [0.25]) == pytest.approx(2 * 0.5 * 1.0 / 1.5)  # ... and of true ones
    assert f_scores(line[:, :1], line, [0.25]) == pytest.approx(2 * 0.5 * 1.0 / 1.5)


def test_evaluation_equals_a_slow_loop_and_batches_do_not_matter() -> None:
    joints, true_joints = hands(7, seed=1)
    vertices, true_vertices = hands(7, points=40, seed=2)
    result = evaluate_predictions(joints, true_joints, vertices, true_vertices, absolute=True)
    expected: dict[str, list[float]] = {}
    for row in range(7):
        pairs = {
            "": (joints[row] - joints[row, 0], true_joints[row] - true_joints[row, 0]),
            "pa_": (slow_align(joints[row], true_joints[row]), true_joints[row]),
            "abs_": (joints[row], true_joints[row]),
        }
        meshes = {
            "": (vertices[row] - joints[row, 0], true_vertices[row] - true_joints[row, 0]),
            "pa_": (slow_align(vertices[row], true_vertices[row]), true_vertices[row]),
            "abs_": (vertices[row], true_vertices[row]),
        }
        for prefix in pairs:
            errors = slow_error(*pairs[prefix])
            expected.setdefault(f"{prefix}mpjpe_mm", []).append(1000 * sum(errors) / 21)
            expected.setdefault(f"{prefix}auc", []).append(slow_auc(errors))
            expected.setdefault(f"{prefix}mpvpe_mm", []).append(1000 * float(np.mean(slow_error(*meshes[prefix]))))
            expected.setdefault(f"{prefix}f5", []).append(slow_f(*meshes[prefix], 0.005))
            expected.setdefault(f"{prefix}f15", []).append(slow_f(*meshes[prefix], 0.015))
    assert set(result.per_sample) == set(expected) == set(result.summary)
    for name, values in expected.items():
        np.testing.assert_allclose(result.per_sample[name], values, atol=1e-9, err_msg=name)
        assert result.summary[name] == pytest.approx(sum(values) / 7, abs=1e-9)
        assert type(result.summary[name]) is float
    tensors = [torch.from_numpy(x) for x in (joints, true_joints, vertices, true_vertices)]
    with mock.patch.object(metrics, "_BATCH", 5):  # the mean of these batches' means is another number
        parted = evaluate_predictions(*tensors, absolute=True)
    assert parted.summary == pytest.approx(result.summary, abs=1e-12)


def test_bad_samples_are_named_and_nothing_is_measured() -> None:
    joints, truth = hands(3)
    joints[1, 4, 2] = np.nan
    with pytest.raises(ValueError, match="joints of image 41 is not finite"):
        evaluate_predictions(joints, truth, image_id=np.array([40, 41, 42]))
    with pytest.raises(ValueError, match="must be alike"):
        evaluate_predictions(truth[:, :20], truth)
    with pytest.raises(ValueError, match="together"):
        evaluate_predictions(truth, truth, truth)
    with mock.patch.object(metrics, "_BATCH", 2), pytest.raises(ValueError, match="different numbers of samples"):
        evaluate_predictions(truth[:2], truth)  # whose first batches are alike
    with pytest.raises(ValueError, match="2 image_id for 3 samples"):
        evaluate_predictions(truth, truth, image_id=np.array([40, 41]))
    with pytest.raises(ValueError, match="no sample"):
        evaluate_predictions(truth[:0], truth[:0])


def test_official_names_units_and_values() -> None:
    joints, true_joints = hands(5, seed=3)
    vertices, true_vertices = hands(5, points=50, seed=4, noise=0.003)
    scores = list_scores("freihand", joints, vertices, true_joints, true_vertices)
    assert len(scores) == 12
    raw = [error for row in range(5) for error in slow_error(joints[row], true_joints[row])]
    assert scores["xyz_mean3d"] == pytest.approx(100 * sum(raw) / len(raw), abs=1e-10)  # cm
    assert scores["xyz_auc3d"] == pytest.approx(slow_auc(raw), abs=1e-12)
    aligned = [slow_align(vertices[row], true_vertices[row]) for row in range(5)]
    expected = np.mean([slow_f(aligned[row], true_vertices[row], 0.005) for row in range(5)])
    assert scores["f_al_score_5"] == pytest.approx(expected, abs=1e-12)
    ho3d = list_scores("ho3d", joints, vertices, true_joints, true_vertices)
    assert set(ho3d) - set(scores) == {
        f"xyz_{kind}_al_{what}" for kind in ("procrustes", "scale_trans") for what in ("mean3d", "auc3d")
    }
    table = dexycb_scores(joints, true_joints)
    in_millimetres = [slow_error(slow_align(j * 1000, t * 1000), t * 1000) for j, t in zip(joints, true_joints)]
    assert table["procrustes"]["mpjpe_mm"] == pytest.approx(np.mean(in_millimetres), abs=1e-8)
    assert table["absolute"]["mpjpe_mm"] == pytest.approx(scores["xyz_mean3d"] * 10)
    ours = evaluate_predictions(joints, true_joints).summary
    assert table["root-relative"]["mpjpe_mm"] == pytest.approx(ours["mpjpe_mm"], abs=1e-9)


def test_bootstrap_resamples_whole_sequences() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(12), 40)
    offset = rng.normal(size=12)[groups]  # frames of one sequence share their difference
    b = rng.normal(size=len(groups))
    mean, low, high = paired_bootstrap(b + 2 + offset, b, groups)
    assert low < mean < high and mean == pytest.approx(np.mean(2 + offset))
    standard_error = np.std([2 + offset[groups == g][0] for g in range(12)]) / math.sqrt(12)
    assert (high - low) / (2 * 1.96 * standard_error) == pytest.approx(1, abs=0.1)
    single_frames = paired_bootstrap(b + 2 + offset, b, np.arange(len(groups)))
    assert single_frames[2] - single_frames[1] < 0.35 * (high - low)
    assert paired_bootstrap(b + 2 + offset, b, groups) == (mean, low, high)


def test_bootstrap_weighs_samples_not_sequences_and_refuses_one_group() -> None:
    a, groups = np.array([0.0, 0.0, 0.0, 4.0]), np.array(["x", "x", "x", "y"])
    mean, low, high = paired_bootstrap(a, np.zeros(4), groups)
    assert (mean, low, high) == (1.0, 0.0, 4.0)
    with pytest.raises(ValueError, match="at least two"):
        paired_bootstrap(a, a, np.zeros(4))
    with pytest.raises(ValueError, match="not finite"):
        paired_bootstrap(a * np.nan, a, groups)


class BoxHand(torch.nn.Module):
    """A 'hand' of 778 points whose first beta scales it and whose second moves its wrist and all with it."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("points", torch.rand(778, 3, generator=generator, dtype=torch.float64) * 0.1)

    def rest(self, betas: torch.Tensor) -> torch.Tensor:
        return self.points * (1 + betas[:, 0, None, None]) + betas[:, 1, None, None]

    def joints(self, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None) -> torch.Tensor:
        return self.rest(betas)[:, :21]


def test_zero_pose_error_ignores_where_the_origin_lies() -> None:
    model = BoxHand()
    betas, truth = np.zeros((3, 10)), np.zeros((3, 10))
    betas[1, 0], betas[2, 1] = 0.1, 5.0
    distances = 0.1 * np.linalg.norm((model.points - model.points[0]).numpy(), axis=1)
    np.testing.assert_allclose(zero_pose_mpvpe(model, betas, truth), [0, 1000 * distances.mean(), 0], atol=1e-9)


def test_lengths() -> None:
    joints = np.zeros((1, 21, 3))
    joints[:, :, 0] = np.arange(21)
    lengths = bone_lengths(torch.from_numpy(joints))
    assert lengths.shape == (1, 20) and lengths[0, :6].tolist() == [1, 1, 1, 1, 5, 1]
