"""The least-squares core against finite differences, closed forms and its own promises of independence."""

from __future__ import annotations

import math

import pytest
import roma
import torch

from benchmarks.simulation import SimulationOptions, simulate
from src.personalization.fitting.fit import FitOptions, PosePriorOptions, observe
from src.personalization.solver.levenberg_marquardt import LMOptions, minimise
from src.personalization.solver.normal_equations import factorise, factorise_model, solve_factored
from src.personalization.solver.robust import LOSSES, robust_loss
from src.personalization.solver.status import Status
from src.personalization.terms.components_first import cayley
from src.personalization.terms.frame_problem import FrameProblem, ShapePrior, step_of
from src.personalization.terms.hand_residuals import lever_arms, point_jacobian, posed_points, shape_jacobian
from src.personalization.terms.inputs import check_frames
from src.personalization.terms.joints_model import JointsModel
from src.personalization.terms.noise import KeypointNoise
from src.personalization.terms.pose_prior import PosePrior, inverse_right_jacobian, matrix_log, prior_terms
from template import HandModel, load_hand_assets
from tests.random_assets import random_assets


@pytest.fixture(scope="module")
def hand() -> JointsModel:
    return JointsModel(random_assets())


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


def test_points_agree_with_the_hand_layer(hand: JointsModel) -> None:
    pose = random_rotations(4, 16)
    betas = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    points = posed_points(hand, pose, hand.rest_points(betas)).points[:, hand.to_standard]
    layer = HandModel(random_assets(), dtype=torch.float64)(pose, betas).joints
    torch.testing.assert_close(points, layer - layer[:, :1], atol=1e-12, rtol=0)


def test_point_jacobians_match_finite_differences(hand: JointsModel) -> None:
    pose, step = random_rotations(2, 16), 1e-6
    betas = torch.randn(2, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rest = hand.rest_points(betas)
    posed = posed_points(hand, pose, rest)
    turns = point_jacobian(hand, posed, lever_arms(hand, posed)).flatten(3)
    for column in range(48):
        vector = torch.zeros(2, 51, dtype=torch.float64)
        vector[:, column] = step
        local = step_of(vector, posed.rotations)["turn"]
        sides = [posed_points(hand, pose @ roma.rotvec_to_rotmat(s * local), rest).points for s in (1, -1)]
        torch.testing.assert_close((sides[0] - sides[1]) / (2 * step), turns[..., column], atol=1e-8, rtol=0)
    shape = shape_jacobian(hand, posed)
    for column in range(10):
        moved = torch.zeros(10, dtype=torch.float64)
        moved[column] = step
        sides = [posed_points(hand, pose, hand.rest_points(betas + s * moved)).points for s in (1, -1)]
        torch.testing.assert_close((sides[0] - sides[1]) / (2 * step), shape[..., column], atol=1e-8, rtol=0)


@pytest.mark.parametrize("angle", [1e-6, 0.3, 2.4, 2.9, 3.1])
def test_logarithm_and_its_derivative(angle: float) -> None:
    axis = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64), dim=-1)
    vector, step = angle * axis, 1e-6
    rotation = roma.rotvec_to_rotmat(vector)
    torch.testing.assert_close(matrix_log(rotation), vector, atol=1e-9, rtol=0)
    derivative = inverse_right_jacobian(vector.T).permute(2, 0, 1)
    for column in range(3):
        turn = torch.zeros(20, 3, dtype=torch.float64)
        turn[:, column] = step
        sides = [matrix_log(rotation @ roma.rotvec_to_rotmat(s * turn)) for s in (1, -1)]
        torch.testing.assert_close((sides[0] - sides[1]) / (2 * step), derivative[..., column], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("full", [False, True])
def test_prior_terms_match_finite_differences(full: bool) -> None:
    reference, pose, step = random_rotations(2, 16, seed=3), random_rotations(2, 16, seed=4), 1e-6
    square = torch.randn(48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    blocks = torch.diag_embed(torch.rand(16, 3, dtype=torch.float64) + 0.5)[None]
    prior = PosePrior(reference, (square @ square.T)[None] if full else blocks, torch.full((1, 16, 3), 0.1).double())
    rotations = random_rotations(2, 16, seed=6)
    last = rotations.permute(2, 3, 1, 0)

    def terms(at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return prior_terms(prior, at.permute(2, 3, 1, 0), last)

    gradient = terms(pose)[1].flatten(0, 1)  # (axis, joint) x frames
    for column in range(48):
        vector = torch.zeros(2, 51, dtype=torch.float64)
        vector[:, column] = step
        turn = step_of(vector, rotations)["turn"]
        costs = [terms(pose @ roma.rotvec_to_rotmat(s * turn))[0] for s in (1, -1)]
        torch.testing.assert_close((costs[0] - costs[1]) / (2 * step), gradient[column], atol=1e-5, rtol=1e-5)


def rigid_tips(model: JointsModel) -> None:
    """Tips that follow one joint each: what else they do is left out of the second derivatives on purpose."""
    model.tip_pose.zero_()
    model.tip_weights = torch.eye(16, dtype=torch.float64)[[15, 3, 6, 12, 9]]
    model.points_below = torch.cat([model.subtree, model.tip_weights @ model.subtree])


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_and_hessian_match_finite_differences(loss: str) -> None:
    problem, state = frames(3, loss)
    rigid_tips(problem.model)
    terms = problem.linearise(state)
    hessian = terms["hessian"] + terms["excess"]

    def cost(vector: torch.Tensor) -> torch.Tensor:
        return problem.linearise(problem.retract(state, step_of(vector.expand(3, 61), terms["rotations"])))["cost"]

    def numeric_hessian(i: int, j: int) -> torch.Tensor:
        step = 1e-4
        sides = {(s, t): cost(step * (s * unit[i] + t * unit[j])) for s in (1, -1) for t in (1, -1)}
        return (sides[1, 1] - sides[1, -1] - sides[-1, 1] + sides[-1, -1]) / (4 * step * step)

    unit = torch.eye(61, dtype=torch.float64)
    for column in range(0, 61, 4):
        slope = (cost(1e-6 * unit[column]) - cost(-1e-6 * unit[column])) / 2e-6
        torch.testing.assert_close(slope, terms["gradient"][:, column], rtol=1e-4, atol=1e-2)
    # The prior's own second derivative is Gauss-Newton: pairs of turns deviate by its share.
    wrist_and_shape = [(48, 50), (50, 50), (49, 55), (55, 58), (3, 49), (20, 50), (7, 55), (33, 60)]
    for i, j in wrist_and_shape:
        scale = float((hessian[:, i, i].abs() * hessian[:, j, j].abs()).sqrt().max())
        torch.testing.assert_close(numeric_hessian(i, j), hessian[:, i, j], rtol=1e-3, atol=2e-3 * scale)
    for i, j in [(0, 0), (0, 5), (16, 17), (5, 6), (2, 34), (10, 10)]:
        scale = float((hessian[:, i, i].abs() * hessian[:, j, j].abs()).sqrt().max())
        torch.testing.assert_close(numeric_hessian(i, j), hessian[:, i, j], rtol=0.05, atol=0.02 * scale)


@pytest.mark.parametrize("loss", LOSSES)
def test_robust_losses_have_the_derivatives_they_state(loss: str) -> None:
    squared = torch.tensor([0.0, 0.5, 3.0, 20.0, 400.0], dtype=torch.float64, requires_grad=True)
    rho, slope, bend = robust_loss(squared, loss, 3.0)
    first = torch.autograd.grad(rho.sum(), squared, create_graph=True)[0]
    torch.testing.assert_close(first, slope)
    if first.requires_grad and loss != "none":
        torch.testing.assert_close(torch.autograd.grad(first.sum(), squared)[0], bend)
    assert slope.detach()[0].item() == 1.0


def test_cayley_is_the_exponential_to_third_order() -> None:
    turn = 0.02 * torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    matrices = cayley(turn).permute(2, 0, 1)
    error = (matrices - roma.rotvec_to_rotmat(turn.T)).abs().amax(dim=(1, 2))
    assert (error < 0.2 * turn.norm(dim=0) ** 3).all()
    wild = cayley(100 * turn).permute(2, 0, 1)
    torch.testing.assert_close(wild @ wild.mT, torch.eye(3, dtype=torch.float64).expand(50, 3, 3))


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
        for key in state:
            # Batched matrix products may add in another order than a single one: rounding, not influence.
            torch.testing.assert_close(alone.state[key][0], together.state[key][row], atol=1e-6, rtol=0)


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
    zero = torch.zeros(5, dtype=torch.float64)
    mixed = factorise_model(good, torch.where(torch.arange(5)[:, None, None] == 3, -2 * good, 0 * good), zero)
    assert mixed.exact.tolist() == [True, True, True, False, True]
    torch.testing.assert_close(mixed.factor[3] @ mixed.factor[3].mT, good[3])
    broken = good.clone()
    broken[4, 0, 0] = math.nan
    assert factorise_model(broken, 0 * good, zero).bad.tolist() == [False] * 4 + [True]
