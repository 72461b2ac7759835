"""What the solver says of an end is true of it: random small problems, judged by their exact gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from src.personalization.solver.levenberg_marquardt import LMOptions, State, minimise
from src.personalization.solver.normal_equations import solve_damped
from src.personalization.solver.status import Status

Residuals = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def exponentials(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """Two decaying exponentials through random samples: nearly flat valleys."""
    time = torch.arange(6, dtype=x.dtype) / 2
    return x[0] * torch.exp(-x[1] * time) + x[2] * torch.exp(-x[3] * time) - data[:6]


def rosenbrock(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """Curved valleys of random steepness, with residuals that cannot all vanish."""
    steep = 10 ** (1 + data[0].tanh())
    return torch.cat([steep * (x[1:] - x[:-1] ** 2), 1 - x[:-1], 0.3 * (x - data[:4])])


def waves(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """Sines of random frequencies: many minima, saddles and maxima, large residuals."""
    frequencies = data.view(2, 4, -1)[..., :4]
    return torch.cat([5 * torch.sin(frequencies[0] @ x) - 3, x - frequencies[1, 0]])


def bounded(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """Residuals that level off far away, as a robust loss does: steps are rejected and damping grows."""
    off = 4 * (x[None] - data.view(8, -1)[:, :4])
    return (off / (1 + off.square()).sqrt()).flatten()


class SmallProblem:
    """`Problem` of N instances x (N,4) of one family with random data (N,32); derivatives by autograd."""

    def __init__(self, family: Residuals, data: torch.Tensor) -> None:
        self.family, self.data = family, data

    def linearise(self, state: State) -> State:
        x = state["x"]
        residual = torch.func.vmap(self.family)(x, self.data)
        jacobian = torch.func.vmap(torch.func.jacrev(self.family))(x, self.data)
        gradient = (jacobian.mT @ residual[..., None])[..., 0]
        return {"cost": residual.square().sum(1) / 2, "gradient": gradient, "hessian": jacobian.mT @ jacobian}

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        step, promised = solve_damped(terms["hessian"], terms["gradient"], damping)
        return {"x": step}, promised

    def retract(self, state: State, step: State) -> State:
        return {"x": state["x"] + step["x"]}

    def rows(self, index: torch.Tensor) -> SmallProblem:
        return SmallProblem(self.family, self.data[index])


@pytest.mark.parametrize("family", [exponentials, rosenbrock, waves, bounded], ids=lambda family: family.__name__)
def test_converged_means_that_the_gradient_has_vanished(family: Residuals) -> None:
    generator = torch.Generator().manual_seed(1)
    count, options = 2000, LMOptions(max_steps=60)
    data = torch.randn(count, 32, generator=generator, dtype=torch.float64)
    start = 2 * torch.randn(count, 4, generator=generator, dtype=torch.float64)
    found = minimise(SmallProblem(family, data), {"x": start}, options)
    x = found.state["x"].requires_grad_()
    residual = torch.func.vmap(family)(x, data)
    cost = residual.square().sum(1) / 2
    torch.testing.assert_close(found.cost, cost.detach())
    gradient = torch.autograd.grad(cost.sum(), x)[0].numpy()
    jacobian = torch.func.vmap(torch.func.jacrev(family))(x.detach(), data).numpy()
    converged = (found.status == Status.CONVERGED).numpy()
    assert converged.mean() > 0.4
    scale = np.linalg.norm(jacobian, axis=1).clip(1e-12)
    left = np.zeros(count)  # decrease that the linearised problem still has, by NumPy's own least squares
    for row in np.flatnonzero(converged):
        scaled = jacobian[row] / scale[row]
        step = np.linalg.lstsq(scaled, -residual[row].detach().numpy(), rcond=1e-3)[0]
        left[row] = -(gradient[row] / scale[row]) @ step / 2
    allowed = options.tolerance + options.relative_tolerance * cost.detach().numpy()
    wrong = converged & (left > 1.01 * allowed)
    assert not wrong.any(), f"{wrong.sum()} of {converged.sum()} CONVERGED, by up to {(left / allowed).max():.3g}"
