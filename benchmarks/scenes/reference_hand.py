"""The hand layer as the paper's code runs it: all 778 vertices, axis-angles in, differentiated by autograd.

The yardstick of `fit_speed.py`. The released fitting loop holds rotations as 6D, turns them into
axis-angles and calls a manopth layer with them (docs/facts.md 7.1, 7.5), and this is that computation written
out from SMPL's equations (Loper et al. 2015, eqs. 2-10) in the order and the layout that manopth and
smplx share: shape blend, joints regressed from the shaped mesh, pose blend, 4x4 transforms along the
chain, one 4x4 transform a vertex. None of `template`'s shortcuts is used, and nothing is slowed down:
`fit_speed.py` also runs the same loop on smplx from PyPI, where that is installed.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable

import numpy as np
import roma
import torch

from template import HandAssets
from utils.joints import MANO_PARENTS, MANO_TO_STANDARD, tip_vertices

#: Joints of each level of the chain: knuckles, middle joints, last joints.
LEVELS = tuple(torch.arange(level, 16, 3) for level in (1, 2, 3))


class ReferenceHand:
    """(pose (B,16,3,3), betas (B,10), transl (B,3)) -> joints (B,21,3), standard order, metres; posed over the mesh."""

    def __init__(self, assets: HandAssets, dtype: torch.dtype = torch.float32) -> None:
        def constant(array: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=dtype)

        self.template, self.regressor = constant(assets.v_template), constant(assets.J_regressor)
        self.shapedirs = constant(assets.shapedirs.reshape(-1, 10).T)
        self.posedirs = constant(assets.posedirs.reshape(-1, 135).T)
        self.weights = constant(assets.weights)
        self.tips = torch.tensor(tip_vertices("manopth", assets.side))
        self.order = torch.tensor(MANO_TO_STANDARD)

    def __call__(self, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor) -> torch.Tensor:
        """See the class."""
        batch = len(pose)
        rotations = roma.rotvec_to_rotmat(roma.rotmat_to_rotvec(pose).view(-1, 3)).view(batch, 16, 3, 3)
        shaped = self.template + torch.matmul(betas, self.shapedirs).view(batch, 778, 3)
        joints = torch.matmul(self.regressor, shaped)
        feature = (rotations[:, 1:] - torch.eye(3, dtype=pose.dtype)).reshape(batch, 135)
        corrected = shaped + torch.matmul(feature, self.posedirs).view(batch, 778, 3)

        bones = torch.cat([joints[:, :1], joints[:, 1:] - joints[:, list(MANO_PARENTS[1:])]], dim=1)
        local = homogeneous(torch.cat([rotations, bones[..., None]], dim=3))
        levels, parent = [local[:, :1]], local[:, :1].expand(-1, 5, -1, -1)
        for level in LEVELS:
            parent = torch.matmul(parent, local[:, level])
            levels.append(parent)
        world = torch.cat([levels[0], torch.stack(levels[1:], dim=2).flatten(1, 2)], dim=1)

        turned = torch.matmul(world[..., :3, :3], joints[..., None])
        relative = torch.cat([world[..., :3], world[..., 3:] - torch.nn.functional.pad(turned, (0, 0, 0, 1))], dim=3)
        blended = torch.matmul(self.weights, relative.flatten(2)).view(batch, 778, 4, 4)
        points = torch.cat([corrected, torch.ones_like(corrected[..., :1])], dim=2)
        vertices = torch.matmul(blended, points[..., None])[..., :3, 0]
        found = torch.cat([world[..., :3, 3], vertices[:, self.tips]], dim=1)
        return found[:, self.order] + transl[:, None]


def homogeneous(transforms: torch.Tensor) -> torch.Tensor:
    """4x4 matrices (...,4,4) of rotations and translations (...,3,4)."""
    last = transforms.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*transforms.shape[:-2], 1, 4)
    return torch.cat([transforms, last], dim=-2)


def smplx_layer(assets: HandAssets, kind: str, **options: bool) -> torch.nn.Module:
    """``smplx.MANO`` or ``smplx.MANOLayer`` (``kind``) from PyPI on these assets; raises ImportError without it."""
    import smplx
    from smplx.utils import Struct

    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "hands_components", "hands_mean")
    tree = np.array([[2**32 - 1, *MANO_PARENTS[1:]], list(range(16))])
    content = Struct(**{name: getattr(assets, name) for name in names}, f=assets.faces, kintree_table=tree)
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()):  # both print a warning about ten betas
        layer = getattr(smplx, kind)(
            "", data_struct=content, is_rhand=True, use_pca=False, flat_hand_mean=True, **options
        )
    logging.disable(logging.NOTSET)
    return layer


def smplx_hand(assets: HandAssets) -> Callable[..., torch.Tensor] | None:
    """The same function on ``smplx.MANO``, or None where smplx is not installed."""
    try:
        layer = smplx_layer(assets, "MANO", create_transl=False)
    except ImportError:
        return None
    tip_index, order = torch.tensor(tip_vertices("manopth", assets.side)), torch.tensor(MANO_TO_STANDARD)

    def joints(pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor) -> torch.Tensor:
        vector = roma.rotmat_to_rotvec(pose).flatten(1)
        out = layer(betas=betas, global_orient=vector[:, :3], hand_pose=vector[:, 3:], transl=transl)
        return torch.cat([out.joints[:, :16], out.vertices[:, tip_index]], dim=1)[:, order]

    return joints
