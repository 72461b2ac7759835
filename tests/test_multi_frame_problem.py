"""The normal equations of many frames with one shape, against dense matrices, differences and re-solved frames."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.scenes.simulation import SimulationOptions, simulate
from src.personalization.calibration.population import CalibrationOptions
from src.personalization.calibration.problem import (
    MultiFrameProblem,
    log_volume_gradient,
    own_factor,
    posterior_covariance,
)
from src.personalization.fitting.fit import PosePriorOptions, observe
from src.personalization.fitting.translation import place_frames
from src.personalization.solver.levenberg_marquardt import LMOptions, minimise
from src.personalization.solver.normal_equations import marquardt
from src.personalization.terms.frame_problem import FrameProblem, step_of
from src.personalization.terms.hand_size import LengthCue
from src.personalization.terms.inputs import check_frames
from src.personalization.terms.noise import KeypointNoise
from template import load_hand_assets
from template.kinematics import JointsModel, posed_points

PERSONS, FRAMES = 2, 3
#: Of a frame: 48 of the rotations, 3 of the wrist.
OWN = 51
OPTIONS = CalibrationOptions(PosePriorOptions(0.1, 0.2), KeypointNoise(std_px=1.5, loss="none"), 0.85, 0.05)


def case(
    noise: float = 2.0, turn: float = 0.1, loss: str = "none", linear: float = 0.3, offsets: bool = False
) -> SimpleNamespace:
    """A problem whose every part is active, the person's own points too if asked for, and a state off its minimum."""
    shifts = [0.008 * np.random.default_rng(number).normal(size=(21, 3)) for number in range(2 * offsets)]
    model = JointsModel(load_hand_assets(), **dict(zip(("offsets", "bends"), shifts, strict=False)))
    options = replace(OPTIONS, noise=replace(OPTIONS.noise, loss=loss))
    world = simulate(load_hand_assets(), PERSONS, FRAMES, SimulationOptions(noise, 0.0, turn, (0.85, 0.05)), seed=3)
    flat = [value.flatten(0, 1) for value in (world.predicted, world.K, world.keypoints)]
    inputs = check_frames(flat[0], world.betas.repeat_interleave(FRAMES, 0), flat[1], flat[2], None)
    generator = torch.Generator().manual_seed(0)
    problem = MultiFrameProblem(
        model,
        observe(model, inputs, options),
        torch.tensor([[1.0], [0.4]], dtype=torch.float64),
        options.population.shape_prior,
        (LengthCue("hand", 0.19, 0.003), LengthCue("index", 0.09, 0.004)),
        linear * torch.randn(PERSONS, 10, generator=generator, dtype=torch.float64),
        torch.linspace(0.005, 0.015, 21, dtype=torch.float64) if offsets else None,
    )
    wrist = world.joints[:, :, 0] + 0.01 * torch.randn(PERSONS, FRAMES, 3, generator=generator, dtype=torch.float64)
    state = {"pose": inputs.pose.unflatten(0, (PERSONS, FRAMES)), "wrist": wrist, "betas": world.betas + 0.2}
    if offsets:
        state["offsets"] = 0.002 * torch.randn(PERSONS, 21, 3, generator=generator, dtype=torch.float64)
    return SimpleNamespace(model=model, world=world, problem=problem, state=state, inputs=inputs, options=options)


def dense(terms: dict[str, torch.Tensor], person: int) -> tuple[np.ndarray, np.ndarray]:
    """Hessian and gradient of all unknowns of a person, frame after frame, then the betas, and the offsets if free."""
    size, shared = FRAMES * OWN, terms["person_gradient"].shape[1]
    matrix, vector = np.zeros((size + shared, size + shared)), np.zeros(size + shared)
    matrix[size:, size:] = terms["person_hessian"][person].numpy()
    vector[size:] = terms["person_gradient"][person].numpy()
    for frame in range(FRAMES):
        own, block = slice(frame * OWN, (frame + 1) * OWN), terms["hessian"][person, frame].numpy()
        matrix[own, own], matrix[own, size:], matrix[size:, own] = (
            block[:OWN, :OWN],
            block[:OWN, OWN:],
            block[OWN:, :OWN],
        )
        vector[own] = terms["gradient"][person, frame, :OWN].numpy()
    return matrix, vector


@pytest.mark.parametrize(("loss", "offsets"), [("none", False), ("geman_mcclure", False), ("geman_mcclure", True)])
def test_the_gradient_is_that_of_the_cost(loss: str, offsets: bool) -> None:
    this, size = case(loss=loss, offsets=offsets), 1e-6
    terms = this.problem.linearise(this.state)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        own = torch.randn(PERSONS, FRAMES, OWN, generator=generator, dtype=torch.float64)
        shared = torch.randn(terms["person_gradient"].shape, generator=generator, dtype=torch.float64)
        shared[:, 10:] *= 0.01  # m
        costs = []
        for amount in (size, -size):
            step = step_of(amount * own, terms["chart"]) | {"betas": amount * shared[:, :10]}
            step |= {"offsets": amount * shared[:, 10:].view(PERSONS, -1, 3)} if offsets else {}
            costs.append(this.problem.linearise(this.problem.retract(this.state, step))["cost"])
        expected = (terms["gradient"][..., :OWN] * own).sum(dim=(1, 2)) + (terms["person_gradient"] * shared).sum(dim=1)
        torch.testing.assert_close((costs[0] - costs[1]) / (2 * size), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("offsets", [False, True])
def test_a_step_solves_the_dense_system(offsets: bool) -> None:
    this = case(offsets=offsets)
    terms, damping = this.problem.linearise(this.state), torch.tensor([0.3, 1e-4], dtype=torch.float64)
    step, promised = this.problem.solve(terms, damping)
    for person in range(PERSONS):
        matrix, vector = dense(terms, person)
        frames = matrix.diagonal()[: FRAMES * OWN].reshape(FRAMES, OWN)
        assert (frames.min(axis=1) > 1e-10 * frames.max(axis=1)).all()  # nothing is unobserved: damping is a multiple
        found = np.linalg.solve(matrix + float(damping[person]) * np.diag(matrix.diagonal()), -vector)
        own, shared = torch.as_tensor(found[: FRAMES * OWN]).view(FRAMES, OWN), found[FRAMES * OWN :]
        turn = torch.einsum("fjab,fjb->fja", terms["chart"][person], own[:, :48].reshape(FRAMES, 16, 3))
        torch.testing.assert_close(step["turn"][person], turn, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(step["wrist"][person], own[:, 48:], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(step["betas"][person], shared[:10], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(step["offsets"][person].flatten(), shared[10:], rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(promised[person], -vector @ found - found @ matrix @ found / 2, rtol=1e-6)


@pytest.mark.parametrize("offsets", [False, True])
def test_the_covariance_is_the_dense_inverse(offsets: bool) -> None:
    this, betas = case(offsets=offsets), slice(FRAMES * OWN, FRAMES * OWN + 10)
    terms = this.problem.linearise(this.state)
    covariance = posterior_covariance(terms)
    for person in range(PERSONS):
        expected = np.linalg.inv(dense(terms, person)[0])[betas, betas]
        np.testing.assert_allclose(covariance[person], expected, rtol=1e-6, atol=1e-12)


def test_one_person_that_is_not_finite_leaves_the_other_alone() -> None:
    this = case()
    terms = this.problem.linearise(this.state)
    alone = this.problem.rows(torch.tensor([1])).solve(
        {k: v[1:] for k, v in terms.items()}, torch.full((1,), 0.1).double()
    )
    spoiled = {key: value.clone() for key, value in terms.items()}
    spoiled["hessian"][0, 1, 3, 3] = torch.nan
    step, promised = this.problem.solve(spoiled, torch.full((2,), 0.1, dtype=torch.float64))
    assert torch.isnan(promised[0]) and all(bool((value[0] == 0).all()) for value in step.values())
    torch.testing.assert_close(promised[1:], alone[1], rtol=1e-7, atol=0)
    for key, value in alone[0].items():
        torch.testing.assert_close(step[key][1:], value, rtol=1e-5, atol=1e-8)


def test_some_of_the_persons() -> None:
    this, index = case(), torch.tensor([1])
    whole = this.problem.linearise(this.state)
    part = this.problem.rows(index).linearise({key: value[index] for key, value in this.state.items()})
    for key, value in whole.items():
        torch.testing.assert_close(part[key], value[index], rtol=1e-12, atol=1e-12)


def test_a_frame_counts_its_share() -> None:
    """Half the share is half the frames' cost, gradient and Hessian; prior, cues and the linear term stay whole."""
    this = case()
    whole, half = (
        replace(this.problem, share=share * this.problem.share).linearise(this.state) for share in (1.0, 0.5)
    )
    none = replace(this.problem, share=0.0 * this.problem.share).linearise(this.state)
    for key in ("cost", "person_gradient", "person_hessian", "gradient", "hessian"):
        torch.testing.assert_close(half[key] - none[key], (whole[key] - none[key]) / 2, rtol=1e-9, atol=1e-9)
    off, prior = this.state["betas"] - this.problem.shape_prior.mean, this.problem.shape_prior.precision
    without = replace(this.problem, cues=(), share=0.0 * this.problem.share).linearise(this.state)
    expected = torch.einsum("pi,ij,pj->p", off, prior, off) / 2 + (this.problem.linear * this.state["betas"]).sum(dim=1)
    torch.testing.assert_close(without["cost"], expected)


@pytest.mark.parametrize("depth_known", [True, False])
def test_the_volume_gradient_against_frames_solved_again(depth_known: bool) -> None:
    """Along each beta: the half log determinant at the frames' minimum there, by NumPy, over the step; of hands whose
    depth nothing tells with three times the logarithm of the depth."""
    this = case(noise=0.1, turn=0.01, linear=0.0)
    seen = this.problem.observations
    seen = seen if depth_known else replace(seen, depth=None, depth_weight=None)
    problem = replace(this.problem, cues=(), observations=seen)
    assert bool(problem.depth_unknown.any()) != depth_known and problem.depth_unknown.shape == (PERSONS, FRAMES)
    lm = LMOptions(max_steps=25, tolerance=1e-9, relative_tolerance=1e-12)
    result = minimise(problem, this.state, lm)
    found = log_volume_gradient(problem, result.state, result.terms)
    split, size = (PERSONS, FRAMES), 0.02
    expected = torch.zeros(PERSONS, 10, dtype=torch.float64)
    for beta in (0, 4):
        sides = []
        for amount in (size, -size):
            betas = result.state["betas"].clone()
            betas[:, beta] += amount
            start = {"pose": result.state["pose"].flatten(0, 1), "wrist": result.state["wrist"].flatten(0, 1)}
            alone = minimise(
                FrameProblem(this.model, problem.observations),
                start | {"betas": betas.repeat_interleave(FRAMES, 0)},
                lm,
            )
            logs = np.linalg.slogdet(alone.terms["hessian"].numpy())[1] / 2
            logs += 0.0 if depth_known else 3 * np.log(alone.state["wrist"][:, 2].numpy())
            sides.append(torch.as_tensor(logs).view(split).sum(dim=1))
        expected[:, beta] = problem.share[:, 0] * (sides[0] - sides[1]) / (2 * size)
    chosen = [0, 4]
    assert expected[:, chosen].abs().max() > 0.05
    torch.testing.assert_close(found[:, chosen], expected[:, chosen], rtol=0.05, atol=0.02)


def test_damping_and_what_is_not_observed() -> None:
    """Marquardt's multiple of each diagonal entry, and a floor for unknowns that nothing sees."""
    diagonal = torch.tensor([[4.0, 2.0, 0.0], [1.0, 1e-3, 9.0]], dtype=torch.float64)
    added = marquardt(diagonal, torch.tensor([0.5, 0.0], dtype=torch.float64))
    np.testing.assert_allclose(added[0, :2], [2.0, 1.0])
    assert 0 < added[0, 2] < 1e-20 and added[1].tolist() == [0.0, 0.0, 0.0]
    hessian = torch.zeros(1, 61, 61, dtype=torch.float64)
    hessian[:, :50, :50] = torch.eye(50).double()  # the wrist's z is seen by nothing
    assert torch.isfinite(own_factor(hessian)).all()


def test_frames_elsewhere_lose_their_weight() -> None:
    """A hand seen as if three times as far: outside the depths it is placed at a typical one and does not count."""
    this = case(noise=0.0)
    seen, options = this.problem.observations, this.options
    rest = this.model.rest_points(this.world.betas).repeat_interleave(this.world.pose.shape[1], dim=0)
    points = posed_points(this.model, this.world.pose.flatten(0, 1), rest).points
    kept, wrist, placed = place_frames(seen, points, options.depths)
    assert placed.all()
    torch.testing.assert_close(wrist, this.world.joints[:, :, 0].flatten(0, 1), atol=1e-6, rtol=0)
    depths = wrist[:, 2].sort().values
    kept, wrist, placed = place_frames(seen, points, (0.1, float(depths[2] + depths[3]) / 2))
    assert int(placed.sum()) == 3 and bool((kept.weights[~placed] == 0).all())
    torch.testing.assert_close(kept.weights[placed], seen.weights[placed])
    unseen = replace(seen, weights=torch.zeros_like(seen.weights))
    _, wrist, placed = place_frames(unseen, points, options.depths)
    assert placed.all() and torch.isfinite(wrist).all()
