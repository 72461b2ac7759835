"""Every fast hand against the plain reference: values, gradients, and Jacobians against automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import roma
import torch

from template import HandAssets, HandModel, load_hand_assets, mirror_assets
from template.kinematics import JointsModel, posed_points, row_jacobian, shape_jacobian
from tests.random_assets import random_assets

N = 3
HANDS = {
    "one joint a tip": load_hand_assets(),
    "many joints a tip": random_assets(),
    "left": mirror_assets(random_assets()),
}


def hand_input(batch: int = N) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    vectors, betas, transl = (
        torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in ((16, 3), (10,), (3,))
    )
    return roma.rotvec_to_rotmat(0.7 * vectors), betas, transl


def kinematics(assets: HandAssets) -> Callable[..., torch.Tensor]:
    """Joints (N,21,3) as a solver sees them; not made for autograd."""
    model = JointsModel(assets)

    def joints(pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor) -> torch.Tensor:
        rest = model.rest_points(betas)
        return (posed_points(model, pose, rest).points + (rest[:, 0] + transl)[:, None])[:, model.to_standard]

    return joints


@pytest.mark.parametrize("assets", HANDS.values(), ids=HANDS)
@pytest.mark.parametrize("path", ["mesh", "joints only", "kinematics"])
@pytest.mark.parametrize("batch", [1, N, 70])
def test_fast_paths_equal_the_reference(path: str, assets: HandAssets, batch: int) -> None:
    arguments = hand_input(batch)
    reference, fast = HandModel(assets, dtype=torch.float64, plain=True), HandModel(assets, dtype=torch.float64)
    functions = {
        "mesh": tuple(lambda *given, hand=hand: torch.cat(hand(*given)[:2], 1) for hand in (reference, fast)),
        "joints only": (lambda *given: reference(*given).joints, fast.joints),
        "kinematics": (lambda *given: reference(*given).joints, kinematics(assets)),
    }[path]
    if path == "kinematics":
        torch.testing.assert_close(functions[1](*arguments), functions[0](*arguments), atol=1e-14, rtol=0)
        return
    found = []
    for function in functions:
        given = [value.clone().requires_grad_() for value in arguments]
        points = function(*given)
        weights = torch.randn(points.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found.append([points, *torch.autograd.grad((points * weights).sum(), given)])
    for expected, result in zip(*found, strict=True):
        torch.testing.assert_close(result, expected, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("assets", HANDS.values(), ids=HANDS)
@pytest.mark.parametrize("charted", [False, True])
def test_jacobians_equal_automatic_differentiation(assets: HandAssets, charted: bool) -> None:
    model, reference = JointsModel(assets), HandModel(assets, dtype=torch.float64, plain=True)
    pose, betas, _ = hand_input()
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(3, 2, 21, N, generator=generator, dtype=torch.float64)
    chart = torch.randn(3, 3, 16, N, generator=generator, dtype=torch.float64) if charted else None
    posed = posed_points(model, pose, model.rest_points(betas))

    def points(unknowns: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
        turn = unknowns if chart is None else torch.einsum("abkn,nkb->nka", chart, unknowns)
        x, y, z = turn.unbind(-1)
        zero = torch.zeros_like(x)
        skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
        joints = reference(pose @ torch.linalg.matrix_exp(skew), shape).joints[:, model.from_standard]
        return joints - joints[:, :1]

    def along_rows(unknowns: torch.Tensor) -> torch.Tensor:
        return torch.einsum("crpn,npc->rp", rows, points(unknowns, betas))

    expected = torch.autograd.functional.jacobian(along_rows, torch.zeros(N, 16, 3, dtype=torch.float64))
    found = row_jacobian(model, posed, rows, chart)
    torch.testing.assert_close(found, expected.permute(0, 1, 3, 4, 2), atol=1e-13, rtol=0)
    still = torch.zeros(N, 16, 3, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(lambda shape: points(still, shape).sum(0), betas)
    torch.testing.assert_close(shape_jacobian(model, posed), expected.permute(1, 0, 3, 2), atol=1e-14, rtol=0)
