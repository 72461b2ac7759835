"""The hand reduced to what keypoints see: 16 joints and 5 tips, with everything else folded away.

The joint regressor is applied to template and shape directions once (J = J_regressor @ v is linear in
betas), and of the 778 vertices only the five tips stay. Equations are those of SMPL (Loper et al. 2015,
eqs. 2-10) and MANO (Romero et al. 2017).
"""

from __future__ import annotations

import functools
import numpy as np
import torch

from template import HandAssets
from utils.joints import MANO_PARENTS, MANO_TO_STANDARD, tip_vertices

#: The tip (row of the 21 points) of each of MANO's fingers: index, middle, little, ring, thumb.
FINGER_TIPS = (17, 18, 20, 19, 16)

#: (16, 16): joint row moves when joint column turns (the column is an ancestor of the row, or the row itself).
SUBTREE = np.zeros((16, 16))
for _joint in range(16):
    _ancestor = _joint
    while _ancestor >= 0:
        SUBTREE[_joint, _ancestor] = 1.0
        _ancestor = MANO_PARENTS[_ancestor]


class JointsModel:
    """Constants of the joints-only hand on one device, in MANO order (16 joints, then 5 tips).

    Attributes (P = 21 points, tips last, thumb to little):
        rest: (21,3) metres, zero-pose points at zero betas; directions: (10,21,3) metres per unit of betas.
        tip_pose: (15,9,15) = (rotated joint, entry of R - I row-major, 3 tip + coordinate), metres.
        tip_weights: (5,16) skinning weights of the tips.
        subtree: (16,16), see `SUBTREE`; points_below: (21,16), the same for all points, tips by their weights.
        finger_order: (21,) rows of the wrist, then (joint or tip, finger), fingers in MANO's order;
        tip_of_finger: (5,) the tip of each of them. parents: (15,).
        tip_pairs: tip (K,) and bone (K,) of every skinning weight of a tip; pair_weights: (K,).
        finger_reach: (4,4) = (point, joint), the joints being a finger's own three and the palm's turn;
        finger_ancestor: (4,4) = (ancestor, joint), one half for a joint itself.
    """

    def __init__(
        self,
        assets: HandAssets,
        tips: str = "manopth",
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        ids = list(tip_vertices(tips, assets.side))
        joint_directions = np.einsum("jv,vcs->sjc", assets.J_regressor, assets.shapedirs)
        rest = np.concatenate([assets.J_regressor @ assets.v_template, assets.v_template[ids]])
        directions = np.concatenate([joint_directions, assets.shapedirs[ids].transpose(2, 0, 1)], axis=1)
        tip_pose = assets.posedirs[ids].reshape(15, 15, 9).transpose(1, 2, 0)

        def constant(array: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=dtype, device=device)

        self.dtype, self.device = dtype, torch.device(device)
        self.rest, self.directions = constant(rest), constant(directions)
        self.tip_pose = constant(tip_pose)
        self.tip_weights = constant(assets.weights[ids])
        self.subtree = constant(SUBTREE)
        self.points_below = torch.cat([self.subtree, self.tip_weights @ self.subtree])
        fingers = [[1 + 3 * finger + bone for bone in range(3)] + [tip] for finger, tip in enumerate(FINGER_TIPS)]
        self.finger_order = torch.tensor([0] + [fingers[f][p] for p in range(4) for f in range(5)], device=device)
        self.tip_of_finger = torch.tensor([tip - 16 for tip in FINGER_TIPS], device=device)
        self.parents = torch.tensor(MANO_PARENTS[1:], device=device)
        self.tip_pairs = self.tip_weights.nonzero(as_tuple=True)
        self.pair_weights = self.tip_weights[self.tip_pairs]
        # Turns of a finger are ordered [knuckle, two joints, palm]: the palm reaches every point, a joint those beyond.
        self.finger_reach = constant(np.hstack([np.tril(np.ones((4, 3)), -1), np.ones((4, 1))]))
        above = np.triu(np.ones((4, 4)), 1)
        above[3], above[:, 3] = 1.0, 0.0
        np.fill_diagonal(above, 0.5)
        self.finger_ancestor = constant(above)
        self.to_standard = torch.tensor(MANO_TO_STANDARD, device=device)

    @functools.cached_property
    def from_standard(self) -> torch.Tensor:
        """(21,) indices: mano = standard[from_standard]."""
        return torch.argsort(self.to_standard)

    def rest_points(self, betas: torch.Tensor) -> torch.Tensor:
        """Zero-pose joints and tips (..., 21, 3), metres, MANO order, from betas (..., 10)."""
        return self.rest + torch.einsum("...s,spc->...pc", betas, self.directions)
