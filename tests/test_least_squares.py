"""The least-squares core against finite differences, closed forms and its own promises of independence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import roma
import torch

from benchmarks.scenes.simulation import SimulationOptions, simulate
from src.personalization.fitting.fit import FitOptions, PosePriorOptions, observe
from src.personalization.solver.levenberg_marquardt import LONGEST, SHORTEST, LMOptions, State, minimise
from src.personalization.solver.normal_equations import factorise, solve_damped, solve_factored
from src.personalization.solver.robust import LOSSES, robust_loss
from src.personalization.solver.status import Status
from src.personalization.terms.frame_problem import FrameProblem, ShapePrior, step_of
from src.personalization.terms.frame_terms import Observations
from src.personalization.terms.inputs import check_frames
from src.personalization.terms.keypoint_terms import keypoint_rows
from src.personalization.terms.noise import KeypointNoise
from src.personalization.terms.pose_prior import PosePrior, inverse_right_jacobian, right_jacobian, rotation_log
from template import HandModel, components_first
from template.components_first import product
from template.kinematics import JointsModel
from tests.random_assets import random_assets
from utils.joints import MANO_PARENTS, MANO_TO_STANDARD, PARENTS, TIP_JOINTS


def random_rotations(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    quaternion = torch.randn(*shape, 4, generator=generator, dtype=torch.float64)
    return roma.unitquat_to_rotmat(torch.nn.functional.normalize(quaternion, dim=-1))


def frames(n: int = 3, loss: str = "none", noise: float = 3.0, seed: int = 0) -> tuple[FrameProblem, dict]:
    """A problem whose every part (keypoints, prior, depth, betas) is active, away from its optimum."""
    assets = random_assets()
    model = JointsModel(assets)
    world = simulate(assets, n, 1, SimulationOptions(noise_px=noise, pose_noise=0.2), seed)
    inputs = check_frames(world.predicted[:, 0], world.betas, world.K[:, 0], world.keypoints[:, 0], None)
    noise_model = KeypointNoise(std_px=2.0, loss=loss, loss_scale=3.0)
    options = FitOptions(PosePriorOptions(0.2, 0.3), noise_model, depth_mean=0.8, depth_std=0.05)
    prior = ShapePrior(torch.zeros(10, dtype=torch.float64), torch.eye(10, dtype=torch.float64))
    rest = model.rest_points(world.betas)
    state = {"pose": inputs.pose, "wrist": world.transl[:, 0] + rest[:, 0] + 0.01, "betas": world.betas + 0.3}
    return FrameProblem(model, observe(model, inputs, options), prior), state


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.05, 0.3, 2.4, 2.9, 3.1])
def test_logarithm_and_its_derivative(angle: float) -> None:
    generator = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64, generator=generator), dim=-1)
    vector, step = angle * axis, 1e-6
    rotation = roma.rotvec_to_rotmat(vector)
    found = rotation_log(rotation.permute(1, 2, 0)).T
    torch.testing.assert_close(found, vector, atol=1e-9, rtol=0)
    torch.testing.assert_close(found, roma.rotmat_to_rotvec(rotation), atol=1e-9, rtol=0)
    derivative, chart = inverse_right_jacobian(vector.T), right_jacobian(vector.T)
    identity = torch.eye(3, dtype=torch.float64)[..., None].expand(3, 3, 20)
    torch.testing.assert_close(product(derivative, chart), identity, atol=1e-9, rtol=0)
    for column in range(3):
        turn = torch.zeros(20, 3, dtype=torch.float64)
        turn[:, column] = step
        sides = [roma.rotmat_to_rotvec(rotation @ roma.rotvec_to_rotmat(s * turn)) for s in (1, -1)]
        torch.testing.assert_close((sides[0] - sides[1]).T / (2 * step), derivative[:, column], atol=1e-6, rtol=1e-6)


def with_offsets(
    layer: HandModel, offsets: torch.Tensor, bends: torch.Tensor, pose: torch.Tensor, betas: torch.Tensor
) -> torch.Tensor:
    """Points (N,21,3), standard order, moved by offsets (21,3) m in the frame of the bone that ends there; of them the
    part ``bends`` (21,3) m in the next bone's, or of a tip in that of the bone before."""
    found, moved = layer(pose, betas), []
    world = [pose[:, 0]]
    for joint in range(1, 16):
        world.append(world[MANO_PARENTS[joint]] @ pose[:, joint])
    for point in range(21):
        bone = MANO_TO_STANDARD[max(PARENTS[point], 0)]
        other = MANO_TO_STANDARD[PARENTS[PARENTS[point]] if point in TIP_JOINTS else point]
        shift = world[bone] @ (offsets - bends)[point] + world[other] @ bends[point]
        moved.append(found.joints[:, point] + shift)
    return torch.stack(moved, dim=1)


@pytest.mark.parametrize("scale_std", [None, 0.0, 0.2, math.inf])
@pytest.mark.parametrize("loss", LOSSES)
def test_terms_equal_automatic_differentiation(
    loss: str, scale_std: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cost, gradient and Hessian of two cameras, two priors, depth and betas, against autograd through the plain layer;
    also of landmarks beside the joints, and of 3D points whose centre and scale are at their best (closed forms here,
    as whole matrices). Few frames and many are two ways to the same."""
    problem, state = frames(3, loss)
    generator = torch.Generator().manual_seed(3)
    offsets, bends = 0.01 * torch.randn(2, 21, 3, dtype=torch.float64, generator=generator)
    model = problem.model = JointsModel(random_assets(), offsets=offsets.numpy(), bends=bends.numpy())
    seen = problem.seen
    if scale_std is not None:
        guess = 0.06 * torch.randn(3, 21, 3, dtype=torch.float64, generator=generator)
        trust = 1e4 * torch.rand(3, 21, 3, dtype=torch.float64, generator=generator)
        trust[1, 4], trust[2, :, 1] = 0, 0
        turn = random_rotations(1, 3, seed=6)[0] if scale_std else None
        known = {"points_3d": guess, "points_3d_weight": trust, "points_3d_turn": turn}
        problem.seen = seen = replace(seen, scale_std=scale_std, **known)
    square = torch.randn(48, 48, dtype=torch.float64, generator=generator)
    other = PosePrior(
        random_rotations(1, 16, seed=5), (square @ square.T)[None], torch.full((1, 16, 3), 0.1, dtype=torch.float64)
    )
    turned = seen.projections.clone()
    turned[..., :3] = turned[..., :3] @ roma.rotvec_to_rotmat(torch.tensor([0.0, 0.1, 0.0], dtype=torch.float64))
    problem.seen = seen = replace(
        seen,
        projections=torch.cat([seen.projections, turned], 1),
        keypoints=seen.keypoints.repeat(1, 2, 1, 1) + 2,
        weights=torch.rand(3, 2, 21, dtype=torch.float64, generator=generator),
        pose_priors=[*seen.pose_priors, other],
    )
    terms, layer = problem.linearise(state), HandModel(random_assets(), dtype=torch.float64, plain=True)
    search = state | {"accepted": torch.ones(3)}  # regards the loss's own curvature
    few = problem.linearise(search)
    nowhere = {name: getattr(seen, name)[:, :0] for name in ("projections", "keypoints", "weights")}  # joints alone
    unseen = FrameProblem(model, replace(seen, **nowhere), problem.shape_prior)
    few_unseen = unseen.linearise(state)
    monkeypatch.setattr(components_first, "FEW", 0)
    cases = (terms, problem.linearise(state)), (few, problem.linearise(search)), (few_unseen, unseen.linearise(state))
    for as_few, as_many in cases:
        for name, value in as_many.items():
            torch.testing.assert_close(as_few[name], value, rtol=1e-9, atol=1e-9)

    def residuals(vector: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of all frames: keypoints (3,2,21,2), and everything that is Gaussian."""
        step = step_of(vector, terms["chart"])
        turn = torch.linalg.cross(step["turn"][..., None, :], torch.eye(3).double()[None, None]).mT
        pose = state["pose"] @ torch.linalg.matrix_exp(turn)
        betas, wrist = state["betas"] + step["betas"], state["wrist"] + step["wrist"]
        origin = layer(pose, betas).joints[:, :1]
        relative = (with_offsets(layer, offsets, bends, pose, betas) - origin)[:, model.from_standard]
        points = relative + wrist[:, None]
        image = points[:, None] @ seen.projections[..., :3].mT + seen.projections[:, :, None, :, 3]
        off = (image[..., :2] / image[..., 2:] - seen.keypoints) * seen.weights[..., None].sqrt()
        gaussian = [(wrist[:, 2:] - seen.depth[:, None]) * seen.depth_weight[:, None].sqrt()]
        gaussian += [(betas - problem.shape_prior.mean) @ torch.linalg.cholesky(problem.shape_prior.precision)]
        for prior in seen.pose_priors:
            phi = roma.rotmat_to_rotvec(prior.reference.mT @ pose) - (0 if prior.offset is None else prior.offset)
            gaussian.append(phi.flatten(1) @ torch.linalg.cholesky(prior.precision[0]))
        if scale_std is not None:
            turn = seen.points_3d_turn
            gaussian.append(guess_residual(relative if turn is None else relative @ turn.mT, seen))
        return off, torch.cat(gaussian, dim=1)

    def cost(vector: torch.Tensor) -> torch.Tensor:
        off, gaussian = residuals(vector)
        return (robust_loss(off.square().sum(-1), loss, seen.loss_scale)[0].sum((1, 2)) + gaussian.square().sum(1)) / 2

    zero = torch.zeros(3, 61, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(terms["cost"], cost(zero).detach())
    torch.testing.assert_close(terms["gradient"], torch.autograd.grad(cost(zero).sum(), zero)[0], rtol=1e-7, atol=1e-5)
    with torch.no_grad():
        trust = robust_loss(residuals(zero)[0].square().sum(-1), loss, seen.loss_scale)[1].sqrt()

    def weighted(vector: torch.Tensor) -> torch.Tensor:
        off, gaussian = residuals(vector)
        return torch.cat([(off * trust[..., None]).flatten(1), gaussian], dim=1).sum(dim=0)

    columns = torch.autograd.functional.jacobian(weighted, zero.detach()).transpose(0, 1)  # (N, residual, unknown)
    torch.testing.assert_close(terms["hessian"], columns.mT @ columns, rtol=1e-7, atol=1e-5)


def guess_residual(points: torch.Tensor, seen: Observations) -> torch.Tensor:
    """(N,64) residuals whose half square is least over centre and scale of the points, A x - b, projected by QR."""
    rows = []
    for point, target, weight in zip(points, seen.points_3d, seen.points_3d_weight, strict=True):
        root, spread = weight.sqrt().flatten(), seen.scale_std
        firm = 1 / spread if 0 < spread < math.inf else 0.0
        flat, right = (torch.cat([root * value.flatten(), root.new_full((1,), firm)]) for value in (point, target))
        centre = torch.cat([root[:, None] * torch.eye(3, dtype=root.dtype).repeat(21, 1), root.new_zeros(1, 3)])
        unknown = (centre if spread == 0 else torch.cat([centre, flat[:, None]], dim=1)).detach()
        unknown = unknown[:, unknown.any(dim=0)]  # nobody looked at a coordinate: it has no centre
        scale = 1.0 if spread == 0 else torch.linalg.lstsq(unknown, right[:, None]).solution[-1, 0]
        basis, off = torch.linalg.qr(unknown).Q, scale * flat - right
        rows.append(off - basis @ (basis.T @ off))
    return torch.stack(rows)


@pytest.mark.parametrize("loss", LOSSES)
def test_robust_losses_have_the_derivatives_they_state(loss: str) -> None:
    squared = torch.tensor([0.0, 0.5, 3.0, 20.0, 400.0], dtype=torch.float64, requires_grad=True)
    rho, slope = robust_loss(squared, loss, 3.0)
    torch.testing.assert_close(torch.autograd.grad(rho.sum(), squared)[0], slope)
    assert slope.detach()[0].item() == 1.0


@pytest.mark.parametrize("loss", LOSSES)
def test_curvature_of_the_robust_loss_is_its_second_derivative(loss: str) -> None:
    """Of one point on the optical axis at unit depth: with K = I its pixel moves as the point does."""
    offsets = torch.tensor([[0.0, 0.0], [0.4, -0.2], [1.1, 0.5], [2.0, 9.0]], dtype=torch.float64)
    count, weight, scale = len(offsets), 1.7, 3.0

    def cost(pixel: torch.Tensor) -> torch.Tensor:
        return robust_loss(weight * pixel.square().sum(), loss, scale)[0] / 2

    points = torch.tensor([0.0, 0, 1], dtype=torch.float64)[:, None, None].expand(3, 1, count)
    projections = torch.eye(3, 4, dtype=torch.float64)[:, :, None, None].expand(3, 4, 1, count)
    given = (points, projections, -offsets.T[:, None, None], torch.full((1, 1, count), weight, dtype=torch.float64))
    flat = torch.full((count,), 0.05, dtype=torch.float64)
    _, residuals, rows = keypoint_rows(*given, loss, scale, flat)
    _, plain_residuals, plain_rows = keypoint_rows(*given, loss, scale)
    for row, off in enumerate(offsets):
        sides, left = rows[:2, :, 0, row].T, residuals[:, 0, row]
        gradient = plain_rows[:2, :, 0, row] @ plain_residuals[:, 0, row]
        torch.testing.assert_close(sides.T @ left, gradient)
        torch.testing.assert_close(gradient, torch.func.jacrev(cost)(off))
        curvature = torch.func.hessian(cost)(off)
        slope = robust_loss(weight * off.square().sum(), loss, scale)[1] * weight
        if row < 3:  # the last is beyond the turning point, where a Hessian must stay positive
            torch.testing.assert_close(sides.T @ sides, curvature)
        else:
            least = torch.linalg.eigvalsh(sides.T @ sides)[0] / slope
            assert least.item() == pytest.approx(1.0 if loss == "none" else 0.05)


def test_search_with_the_losses_curvature_ends_at_the_same_minimum_in_fewer_steps() -> None:
    problem, state = frames(24, "geman_mcclure", noise=3.0)
    options = LMOptions(max_steps=60, tolerance=1e-5)
    plain = minimise(problem, state, options)
    search = minimise(problem, state | {"accepted": torch.zeros_like(plain.cost)}, options)
    both = (plain.status == Status.CONVERGED) & (search.status == Status.CONVERGED)
    assert both.sum() >= 22
    torch.testing.assert_close(search.cost[both], plain.cost[both], atol=1e-3, rtol=0)
    assert search.steps[both].sum() < 0.9 * plain.steps[both].sum()


class Stretched:
    """`Problem` x (P,1) with the cost x^2 / 2, whose solver takes the curvature for ``factor`` (P,) of what it is."""

    def __init__(self, factor: torch.Tensor) -> None:
        self.factor = factor

    def linearise(self, state: State) -> State:
        x = state["x"][:, 0]
        return {"cost": x.square() / 2, "gradient": x, "factor": self.factor}

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        step = -terms["gradient"] / terms["factor"]
        return {"x": step[:, None]}, terms["gradient"].square() / terms["factor"] / 2

    def retract(self, state: State, step: State) -> State:
        return {"x": state["x"] + step["x"]}

    def rows(self, index: torch.Tensor) -> Stretched:
        return Stretched(self.factor[index])


def test_steps_that_are_always_too_long_or_too_short_are_corrected() -> None:
    factor = torch.tensor([SHORTEST + 0.1, 1.0, LONGEST - 0.5], dtype=torch.float64)
    found = minimise(Stretched(factor), {"x": torch.ones(3, 1, dtype=torch.float64)}, LMOptions(20, 1e-12, 0.0))
    assert (found.status == Status.CONVERGED).all()
    # Alone, a factor f leaves |1 - 1 / f| of the distance each step: 35 and 27 steps to 1e-6.
    assert found.steps.tolist() == [2, 1, 4]


def test_result_is_a_minimum_and_independent_of_neighbours() -> None:
    problem, state = frames(6, "none", noise=2.0)
    together = minimise(problem, state, LMOptions(max_steps=60))
    assert (together.status == Status.CONVERGED).all()
    slope = together.terms["gradient"].abs() / together.terms["hessian"].diagonal(dim1=1, dim2=2).sqrt()
    assert float(slope.max()) < 0.05  # in standard deviations of each unknown alone
    for row in range(6):
        index = torch.tensor([row])
        own_state = {key: value[index] for key, value in state.items()}
        alone = minimise(problem.rows(index), own_state, LMOptions(max_steps=60))
        assert (alone.steps[0], alone.status[0]) == (together.steps[row], together.status[row])
        for key in state:
            # Batched matrix products may add in another order than a single one: rounding, not influence.
            torch.testing.assert_close(alone.state[key][0], together.state[key][row], atol=1e-6, rtol=0)


@pytest.mark.parametrize("most", [0, 1, 2, 60])
def test_one_problem_takes_the_steps_of_many(most: int) -> None:
    """From far away, through a robust loss, with rejected steps and longer ones; also where they are used up."""
    problem, state = frames(8, "geman_mcclure", noise=6.0)
    state = state | {"wrist": state["wrist"] + 0.1, "accepted": torch.zeros(8)}
    options = LMOptions(max_steps=most, tolerance=1e-4)
    together = minimise(problem, state, options)
    assert most < 60 or together.steps.max() > 6
    for row in range(8):
        index = torch.tensor([row])
        alone = minimise(problem.rows(index), {key: value[index] for key, value in state.items()}, options)
        assert (alone.steps[0], alone.status[0]) == (together.steps[row], together.status[row])
        torch.testing.assert_close(alone.cost[0], together.cost[row], atol=1e-6, rtol=1e-6)


def test_a_poisoned_neighbour_changes_nothing() -> None:
    problem, state = frames(4, "none", noise=2.0)
    clean = minimise(problem, state)
    sick = {key: value.clone() for key, value in state.items()}
    sick["wrist"][2] = torch.nan
    result = minimise(problem, sick)
    assert result.status[2] == Status.DIVERGED
    for key in state:
        keep = [0, 1, 3]
        # Not bit-equal: a batch of which half has ended is made smaller, and its products add in another order.
        torch.testing.assert_close(result.state[key][keep], clean.state[key][keep], atol=1e-9, rtol=0)


def test_indefinite_and_singular_systems_are_solved() -> None:
    square = torch.randn(5, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    good = square @ square.mT + torch.eye(12).double()
    system = good.clone()
    system[1] = -good[1]
    system[2, :, 0] = system[2, 0, :] = 0
    factor = factorise(system)
    torch.testing.assert_close(factor[0] @ factor[0].mT, good[0])
    torch.testing.assert_close(factor[1] @ factor[1].mT, good[1])  # |eigenvalues|
    assert torch.isfinite(solve_factored(factor, torch.ones(5, 12).double())).all()
    broken, gradient = good.clone(), torch.ones(5, 12, dtype=torch.float64)
    broken[4, 0, 0] = math.nan
    steps, promised = solve_damped(broken, gradient, torch.full((5,), 0.5, dtype=torch.float64))
    assert torch.isfinite(promised).tolist() == [True] * 4 + [False] and not steps[4].any()
    damped = good + 0.5 * torch.diag_embed(good.diagonal(dim1=1, dim2=2))
    expected = -torch.linalg.solve(damped, gradient)
    torch.testing.assert_close(steps[:4], expected[:4])
    fall = -(gradient * expected).sum(1) - (expected * (good @ expected[..., None])[..., 0]).sum(1) / 2
    torch.testing.assert_close(promised[:4], fall[:4])


def test_a_few_frames_are_judged_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's verdicts and replacements are PyTorch's, of good frames and of one with each fault."""
    generator = torch.Generator().manual_seed(3)
    pose, betas = random_rotations(9, 16, seed=7).double(), torch.zeros(9, 10, dtype=torch.float64)
    K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64).repeat(9, 1, 1)
    keypoints = 200 + 100 * torch.rand(9, 21, 2, dtype=torch.float64, generator=generator)
    confidence = torch.rand(9, 21, dtype=torch.float64, generator=generator)
    keypoints[1, 3], keypoints[2], confidence[3] = torch.nan, 7.0, 0.0
    K[4, 0, 0], K[5, 2, 2], pose[6, 2], pose[7, 3], betas[8, 0] = torch.nan, 2.0, torch.nan, -pose[7, 3], torch.inf
    few = check_frames(pose, betas, K, keypoints, confidence, 0.1)
    assert len(few.status.unique()) == 6
    monkeypatch.setattr(components_first, "FEW", 0)
    many = check_frames(pose, betas, K, keypoints, confidence, 0.1)
    for name, value in vars(many).items():
        torch.testing.assert_close(getattr(few, name), value, rtol=1e-12, atol=1e-12)
