"""All frames of a video together, and frame by frame as they come: against dense algebra, autograd and the truth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import roma
import torch

from src.personalization.fitting.fit import FitOptions, FitResult, fit_frames, observe
from src.personalization.fitting.fixed_lag import FixedLagSmoother
from src.personalization.fitting.sequence import LARGEST_GAP, SequenceOptions, fit_sequence
from src.personalization.fitting.sequence_problem import Chain, SequenceProblem, smoothness_model
from src.personalization.solver.block_banded import band, solve_band
from src.personalization.solver.status import Status, usable
from src.personalization.terms.frame_problem import ShapePrior
from src.personalization.terms.inputs import check_frames
from src.personalization.terms.pose_prior import habit_prior
from src.personalization.terms.smoothness import Smoothness, smoothness_rows
from template import load_hand_assets
from template.kinematics import JointsModel, posed_points

MODEL = JointsModel(load_hand_assets())
FRAMES, HIDDEN = 60, slice(25, 37)
SECONDS = torch.arange(FRAMES, dtype=torch.float64) / 30
OPTIONS = SequenceOptions(smoothness=Smoothness(3.0, 5.0, 0.5))


def rotations(*shape: int, generator: torch.Generator, size: float) -> torch.Tensor:
    return roma.rotvec_to_rotmat(size * torch.randn(*shape, 3, generator=generator, dtype=torch.float64))


class Scene:
    """A moving hand, its noisy keypoints and a network's noisy poses; hidden for 12 frames."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)

        def wave(count: int, size: float) -> torch.Tensor:
            speed, phase = torch.rand(2, count, generator=generator, dtype=torch.float64) * 6
            return size * torch.sin(SECONDS[:, None] * speed + phase)

        turns = torch.cat([wave(3, 0.4)[:, None], wave(45, 0.25).view(FRAMES, 15, 3)], dim=1)
        self.pose = roma.rotvec_to_rotmat(turns)
        self.betas = 0.7 * torch.randn(10, generator=generator, dtype=torch.float64)
        self.rest = MODEL.rest_points(self.betas)[None].expand(FRAMES, -1, -1)
        self.wrist = torch.tensor([0.0, 0.0, 0.6], dtype=torch.float64) + wave(3, 0.05)
        self.points = posed_points(MODEL, self.pose, self.rest).points + self.wrist[:, None]
        K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=torch.float64)
        self.K = K.expand(FRAMES, 3, 3)
        image = self.points @ K.mT
        noise = torch.randn(FRAMES, 21, 2, generator=generator, dtype=torch.float64)
        self.keypoints = (image[..., :2] / image[..., 2:])[:, MODEL.to_standard] + 3 * noise
        self.confidence = torch.ones(FRAMES, 21, dtype=torch.float64)
        self.confidence[HIDDEN] = 0
        self.guess = self.pose @ rotations(FRAMES, 16, generator=generator, size=0.2)

    def errors(self, fit: FitResult) -> tuple[float, float, float]:
        """Mean error of the points seen and hidden, mm, and of their accelerations, mm / s^2."""
        rest = MODEL.rest_points(fit.betas)
        points = posed_points(MODEL, fit.pose, rest).points + (fit.transl + rest[:, 0])[:, None]
        off = 1000 * (points - self.points)
        distance = off.norm(dim=-1).mean(dim=1)
        hidden = torch.zeros(FRAMES, dtype=torch.bool)
        hidden[HIDDEN] = True
        second = (off[2:] - 2 * off[1:-1] + off[:-2]) * 30**2
        return float(distance[~hidden].mean()), float(distance[hidden].mean()), float(second.norm(dim=-1).mean())


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def test_the_bands_system_is_the_dense_one() -> None:
    generator = torch.Generator().manual_seed(0)
    frames, size = 5, 51
    blocks = torch.randn(frames, size, size, generator=generator, dtype=torch.float64)
    blocks = blocks @ blocks.mT + 100 * torch.eye(size)
    one, two = (torch.randn(frames - n, 17, 3, 3, generator=generator, dtype=torch.float64) for n in (1, 2))
    right = torch.randn(frames, size, 2, generator=generator, dtype=torch.float64)
    dense = torch.block_diag(*blocks).view(frames, size, frames, size)
    for distance, couplings in ((1, one), (2, two)):
        for frame, coupling in enumerate(couplings):
            block = torch.block_diag(*coupling)
            dense[frame + distance, :, frame], dense[frame, :, frame + distance] = block, block.mT
    expected = torch.linalg.solve(dense.reshape(255, 255), right.view(255, 2)).view_as(right)
    torch.testing.assert_close(solve_band(band(blocks, one, two), right), expected)
    assert solve_band(band(-blocks, one, two), right) is None


def test_smoothness_and_its_derivatives() -> None:
    """Against automatic differentiation through another library's logarithm, at uneven times, in a chart."""
    generator = torch.Generator().manual_seed(1)
    pose, chart = (rotations(4, 16, generator=generator, size=size) for size in (0.5, 0.8))
    wrist = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    seconds = torch.tensor([0.0, 0.03, 0.08, 0.1], dtype=torch.float64)
    smoothness = Smoothness(2.0, 3.0, 0.7, depth_std=0.9, memory=0.2)

    def residuals(unknowns: torch.Tensor) -> torch.Tensor:
        turn = (chart @ unknowns[:, :16, :, None])[..., 0]
        moved, place = pose @ roma.rotvec_to_rotmat(turn), wrist + unknowns[:, 16]
        step = seconds.diff()[:, None]
        phi = roma.rotmat_to_rotvec(moved[:-1].mT @ moved[1:]) / step[:, None]
        velocity = torch.cat([phi, (place.diff(dim=0) / step)[:, None]], dim=1)
        std = torch.full((17, 3), 3.0, dtype=torch.float64)
        std[0], std[16] = 2.0, torch.tensor([0.7, 0.7, 0.9])
        between = ((step[1:] + step[:-1]) / 2)[..., None]
        return (velocity[1:] - torch.exp(-between / 0.2) * velocity[:-1]) / (std * between.sqrt())

    zero = torch.zeros(4, 17, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(residuals, zero)  # (2,17,3,4,17,3)
    found, parts = smoothness_rows(pose, wrist, seconds.diff(), chart, smoothness)
    torch.testing.assert_close(found, residuals(zero))
    for row in range(2):
        for offset, part in enumerate(parts):
            for joint in range(17):
                torch.testing.assert_close(part[row, joint], jacobian[row, joint, :, row + offset, joint])
    model, one, two = smoothness_model(pose, wrist, Chain(seconds.diff(), torch.ones(3, dtype=bool)), chart, smoothness)
    flat = jacobian.reshape(102, 204)
    hessian = (flat.T @ flat).view(4, 17, 3, 4, 17, 3)
    torch.testing.assert_close(model.gradient.view(4, 17, 3), (flat.T @ found.flatten()).view(4, 17, 3))
    torch.testing.assert_close(model.blocks[1, 5], hessian[1, 5, :, 1, 5])
    torch.testing.assert_close(one[0, 16], hessian[1, 16, :, 0, 16])
    torch.testing.assert_close(two[1, 3], hessian[3, 3, :, 1, 3])


def test_a_sequence_is_smoother_and_nearer_than_its_frames(scene: Scene) -> None:
    arguments = (MODEL, scene.guess, scene.betas, scene.K, scene.keypoints)
    alone = fit_frames(*arguments[:2], scene.betas.expand(FRAMES, -1), *arguments[3:], scene.confidence)
    whole = fit_sequence(*arguments, SECONDS, scene.confidence, OPTIONS)
    assert bool((alone.status[HIDDEN] == Status.NO_KEYPOINTS).all())
    assert bool(usable(whole.status).all())
    before, after = scene.errors(alone), scene.errors(whole)
    assert after[0] < 0.6 * before[0]
    assert after[1] < 25 < before[1]  # carried by the neighbours through 0.4 s
    assert after[2] < 0.2 * before[2]


def test_the_shape_of_all_frames(scene: Scene) -> None:
    prior = ShapePrior(torch.zeros(10, dtype=torch.float64), torch.eye(10, dtype=torch.float64))
    frame = FitOptions(shape_prior=prior, world_std=(0.003,) * 21, world_scale_std=0.0)
    generator = torch.Generator().manual_seed(5)
    noise = 0.003 * torch.randn(FRAMES, 21, 3, generator=generator, dtype=torch.float64)
    zero = torch.zeros(10, dtype=torch.float64)
    whole = fit_sequence(
        MODEL, scene.guess, zero, scene.K, scene.keypoints, SECONDS, scene.confidence,
        replace(OPTIONS, frame=frame), world=scene.points[:, MODEL.to_standard] + noise,
    )  # fmt: skip
    assert len(whole.betas.unique(dim=0)) == 1
    rest = MODEL.rest_points(torch.stack([whole.betas[0], scene.betas, zero]))
    rest = rest - rest[:, :1]
    found, unknown = ((rest[row] - rest[1]).norm(dim=-1).mean() for row in (0, 2))
    assert found < 0.5 * unknown


def test_the_solution_is_stationary(scene: Scene) -> None:
    """Where the solver says CONVERGED no small step in any direction lowers the cost: differences, not derivatives."""
    few = slice(0, 12)
    arguments = (scene.guess[few], scene.betas, scene.K[few], scene.keypoints[few], SECONDS[few], scene.confidence[few])
    options = replace(OPTIONS, lm=replace(OPTIONS.lm, max_steps=60, tolerance=1e-12, relative_tolerance=1e-14))
    whole = fit_sequence(MODEL, *arguments, options)
    assert bool((whole.status == Status.CONVERGED).all())
    inputs = check_frames(scene.guess[few], scene.betas.expand(12, -1), *arguments[2:4], arguments[5])
    chain = Chain(SECONDS[few].diff(), torch.ones(11, dtype=torch.bool))
    problem = SequenceProblem(MODEL, observe(MODEL, inputs, options.frame), chain, options.smoothness)
    wrist = whole.transl + MODEL.rest_points(whole.betas)[:, 0]
    state = {"pose": whole.pose[None], "wrist": wrist[None], "betas": scene.betas[None, None]}
    least = problem.linearise(state)["cost"]
    generator = torch.Generator().manual_seed(9)
    for _ in range(20):
        turn = 1e-3 * torch.randn(1, 12, 16, 3, generator=generator, dtype=torch.float64)
        shift = 1e-4 * torch.randn(1, 12, 3, generator=generator, dtype=torch.float64)
        for sign in (1, -1):
            moved = problem.retract(state, {"turn": sign * turn, "wrist": sign * shift})
            assert problem.linearise(moved)["cost"] > least


def test_two_hands_do_not_touch(scene: Scene) -> None:
    """Two tracks in one call are the two calls."""
    half = FRAMES // 2
    track = (torch.arange(FRAMES) >= half).long()
    options = replace(OPTIONS, lm=replace(OPTIONS.lm, max_steps=20, tolerance=1e-8))
    arguments = (scene.guess, scene.K, scene.keypoints, SECONDS, scene.confidence)
    both = fit_sequence(MODEL, arguments[0], scene.betas, *arguments[1:4], arguments[4], options, track)
    for rows in (slice(0, half), slice(half, FRAMES)):
        one = [value[rows] for value in arguments]
        alone = fit_sequence(MODEL, one[0], scene.betas, *one[1:4], one[4], options)
        torch.testing.assert_close(both.pose[rows], alone.pose, atol=5e-3, rtol=0)
    linked = fit_sequence(MODEL, arguments[0], scene.betas, *arguments[1:4], arguments[4], options)
    assert (linked.pose - both.pose)[half - 1 : half + 1].abs().max() > 0.02


def test_times_that_do_not_increase_are_named(scene: Scene) -> None:
    seconds = SECONDS.clone()
    seconds[7] = seconds[3]
    with pytest.raises(ValueError, match=r"frame 6 at 0\.2 s, then 0\.1 s"):
        fit_sequence(MODEL, scene.guess, scene.betas, scene.K, scene.keypoints, seconds)
    smoother = FixedLagSmoother(MODEL, scene.betas)
    smoother.update(scene.guess[0], scene.K[0], scene.keypoints[0], 1.0)
    with pytest.raises(ValueError, match=r"0\.5 s after one at 1 s"):
        smoother.update(scene.guess[1], scene.K[1], scene.keypoints[1], 0.5)


def test_a_stream_says_what_it_needs(scene: Scene) -> None:
    with pytest.raises(ValueError, match="a lag of -1 frames"):
        FixedLagSmoother(MODEL, scene.betas, lag=-1)
    with pytest.raises(ValueError, match="float64 on cpu, not torch.float32"):
        FixedLagSmoother(JointsModel(load_hand_assets(), dtype=torch.float32), scene.betas)


def stream(scene: Scene, lag: int, frames: int = FRAMES) -> FitResult:
    smoother, settled = FixedLagSmoother(MODEL, scene.betas, OPTIONS, lag), []
    for row in range(frames):
        arguments = (scene.guess[row], scene.K[row], scene.keypoints[row], float(SECONDS[row]), scene.confidence[row])
        settled += smoother.update(*arguments)
    settled += smoother.flush()
    assert [number for number, _ in settled] == list(range(frames))
    names = vars(settled[0][1])
    return FitResult(**{name: torch.cat([getattr(result, name) for _, result in settled]) for name in names})


def test_a_stream_is_better_than_its_frames_and_lag_helps(scene: Scene) -> None:
    alone = fit_frames(MODEL, scene.guess, scene.betas.expand(FRAMES, -1), scene.K, scene.keypoints, scene.confidence)
    errors = [scene.errors(fit) for fit in (alone, stream(scene, 0), stream(scene, 6))]
    assert errors[1][0] < 0.9 * errors[0][0] and errors[1][2] < 0.5 * errors[0][2]
    assert errors[2][0] < errors[1][0] and errors[2][2] < errors[1][2]


def test_betas_set_anew_are_of_any_type(scene: Scene) -> None:
    """Single precision ended in a matrix product's own words, with the frame half taken in."""
    smoother = FixedLagSmoother(MODEL, scene.betas, OPTIONS)
    smoother.betas = torch.ones(10)
    ((_, fit),) = smoother.update(scene.guess[0], scene.K[0], scene.keypoints[0], 0.0)
    assert bool(usable(fit.status).all()) and bool((fit.betas == 1).all())


def test_a_lag_as_long_as_the_video_is_the_whole_fit(scene: Scene) -> None:
    """The window's dense algebra and the band's, started apart, end at one minimum."""
    frames = 8
    part = slice(0, frames)
    whole = fit_sequence(
        MODEL, scene.guess[part], scene.betas, scene.K[part], scene.keypoints[part], SECONDS[part],
        scene.confidence[part], replace(OPTIONS, lm=replace(OPTIONS.lm, max_steps=30, tolerance=1e-9)),
    )  # fmt: skip
    late = stream(scene, frames, frames)
    torch.testing.assert_close(late.pose, whole.pose, atol=0.04, rtol=0)  # the newest frames had two steps
    torch.testing.assert_close(late.transl, whole.transl, atol=2e-3, rtol=0)


def test_priors_of_the_options_serve_every_window_and_hand(scene: Scene) -> None:
    """A silent frame, or another number of frames, leaves nothing behind in a prior that the caller gave."""
    prior = habit_prior(load_hand_assets())
    options, precision = replace(OPTIONS, frame=FitOptions(extra_priors=(prior,))), prior.precision.clone()
    for frames in (8, 10):  # two hands of a video, the second in view for longer
        rows = slice(HIDDEN.start - 6, HIDDEN.start - 6 + frames)
        given = scene.K[rows], scene.keypoints[rows], SECONDS[rows], scene.confidence[rows]
        assert bool(usable(fit_sequence(MODEL, scene.guess[rows], scene.betas, *given, options).status).all())
        torch.testing.assert_close(prior.precision, precision, rtol=0, atol=0)
    for lag in (0, 3):
        smoother = FixedLagSmoother(MODEL, scene.betas, options, lag)
        for frame in range(HIDDEN.start - 5, HIDDEN.start + 1):  # the last one shows nothing
            row = scene.guess[frame], scene.K[frame], scene.keypoints[frame], float(SECONDS[frame])
            smoother.update(*row, scene.confidence[frame])
        torch.testing.assert_close(prior.precision, precision, rtol=0, atol=0)


def test_a_hand_that_was_gone_begins_anew(scene: Scene) -> None:
    smoother = FixedLagSmoother(MODEL, scene.betas, OPTIONS)
    nothing = torch.zeros(21, dtype=torch.float64)
    ((number, first),) = smoother.update(scene.guess[0], scene.K[0], scene.keypoints[0], 0.0, nothing)
    assert number == 0 and not bool(usable(first.status))
    for time in (0.1, 5.0):
        ((_, seen),) = smoother.update(scene.guess[0], scene.K[0], scene.keypoints[0], time)
        alone = fit_frames(MODEL, scene.guess[:1], scene.betas[None], scene.K[:1], scene.keypoints[:1])
        torch.testing.assert_close(seen.pose, alone.pose, atol=0.02, rtol=0)


def test_what_no_frame_nearby_shows_is_not_known(scene: Scene) -> None:
    confidence = torch.ones_like(scene.confidence)
    confidence[20:] = 0
    given = (scene.K, scene.keypoints, SECONDS, confidence)
    whole = fit_sequence(MODEL, scene.guess, scene.betas, *given, options=OPTIONS)
    known = SECONDS - SECONDS[19] <= LARGEST_GAP
    assert torch.equal(usable(whole.status), known) and bool((whole.status[~known] == Status.NO_KEYPOINTS).all())
    smoother, status = FixedLagSmoother(MODEL, scene.betas, OPTIONS), []
    for frame in range(FRAMES):
        now = (scene.guess[frame], scene.K[frame], scene.keypoints[frame], float(SECONDS[frame]), confidence[frame])
        status += [one.status for _, one in smoother.update(*now)]
    assert torch.equal(usable(torch.cat(status)), usable(whole.status))


def test_no_frame_with_a_hand(scene: Scene) -> None:
    blank = torch.zeros_like(scene.confidence)
    whole = fit_sequence(MODEL, scene.guess, scene.betas, scene.K, scene.keypoints, SECONDS, blank)
    assert bool((whole.status == Status.NO_KEYPOINTS).all())


def test_one_frames_shape_that_is_none_spoils_no_other(scene: Scene) -> None:
    shapes = scene.betas.expand(FRAMES, 10).clone()
    whole = fit_sequence(MODEL, scene.guess, shapes, scene.K, scene.keypoints, SECONDS, scene.confidence)
    shapes[4, 2] = torch.nan
    found = fit_sequence(MODEL, scene.guess, shapes, scene.K, scene.keypoints, SECONDS, scene.confidence)
    for name in ("pose", "betas", "transl", "reprojection_px"):
        assert torch.isfinite(getattr(found, name)).all()
    far = torch.arange(FRAMES).sub(4).abs() > 8
    torch.testing.assert_close(found.transl[far], whole.transl[far], atol=2e-3, rtol=0)


def test_no_frames_and_times_that_are_none(scene: Scene) -> None:
    nothing = fit_sequence(MODEL, scene.guess[:0], scene.betas, scene.K[:0], scene.keypoints[:0], SECONDS[:0])
    assert len(nothing.status) == 0 and nothing.pose.shape == (0, 16, 3, 3)
    with pytest.raises(ValueError, match=f"{FRAMES} poses, 3 times"):
        fit_sequence(MODEL, scene.guess, scene.betas, scene.K, scene.keypoints, SECONDS[:3])
    smoother = FixedLagSmoother(MODEL, scene.betas)
    frame = scene.guess[0], scene.K[0], scene.keypoints[0]
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"a frame at {wrong} s: it has no time"):
            smoother.update(*frame, wrong)
    assert [number for number, _ in smoother.update(*frame, 1.0)] == [0]
    with pytest.raises(ValueError, match="does not advance"):
        smoother.update(*frame, 1.0)
    assert [number for number, _ in smoother.update(*frame, 1.1)] == [1]


def test_frames_that_do_not_follow_each_other_are_noticed(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    order = torch.randperm(FRAMES, generator=torch.Generator().manual_seed(0))
    given = (MODEL, scene.guess, scene.betas, scene.K, scene.keypoints, SECONDS)
    fit_sequence(*given, scene.confidence)
    assert not caplog.records
    # Places as far apart as in unrelated pictures, all in a thirtieth of a second.
    shift = 300.0 * torch.randn(FRAMES, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shuffled = (MODEL, scene.guess[order], scene.betas, scene.K, scene.keypoints[order] + shift, SECONDS)
    fit_sequence(*shuffled, scene.confidence[order])
    assert "do these frames follow each other" in caplog.text


@pytest.mark.parametrize("begin", [5e4, 1.7e9], ids=["time of day", "unix time"])
def test_times_do_not_depend_on_where_the_clock_began(scene: Scene, begin: float) -> None:
    model = JointsModel(load_hand_assets(), dtype=torch.float32)
    arguments = (model, scene.guess, scene.betas, scene.K, scene.keypoints)
    expected, found = (fit_sequence(*arguments, at + SECONDS, scene.confidence, OPTIONS) for at in (0.0, begin))
    assert bool(usable(found.status).all())
    torch.testing.assert_close(found.transl, expected.transl, atol=1e-4, rtol=0)


def test_times_in_milliseconds_are_noticed(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    fit_sequence(MODEL, scene.guess, scene.betas, scene.K, scene.keypoints, 1000 * SECONDS, None, OPTIONS)
    assert "within 0.6 s of each other (mostly 33.3333 s): each is fitted alone; are times in seconds?" in caplog.text


def test_what_a_sequence_does_not_use_is_refused() -> None:
    from options.fit import get_args_parser

    with pytest.raises(ValueError, match="evidence_rounds is of single frames"):
        SequenceOptions(frame=FitOptions(evidence_rounds=2))
    for words in (
        "--video --evidence_rounds 2",
        "--fit_shape --evidence_rounds 2",
        "--evidence_rounds -1",
        "--fit_shape --shape_source gt",
    ):
        with pytest.raises(SystemExit):
            get_args_parser().parse_args(words.split())
