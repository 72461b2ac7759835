"""The template hand as tokens: 21 joints and 195 of its vertices, of the mean person or of a known one."""

from __future__ import annotations

import torch
from torch import nn

from src.models.cmr.rest_mesh import hand_size
from src.models.mesh_joints import mesh_joints
from template import HandModel, load_hand_assets, pca_to_pose

N_JOINTS, N_VERTICES = 21, 778
#: The fixed selection of the 778 vertices that released checkpoints were trained with.
# fmt: off
VERTICES_195 = (
    5, 8, 10, 11, 12, 15, 19, 20, 24, 28, 30, 32, 33, 37, 39, 41, 45, 48, 49, 52, 53, 54, 55, 58, 59, 61, 62,
    76, 83, 85, 91, 98, 102, 105, 106, 110, 114, 115, 124, 137, 148, 150, 154, 159, 160, 161, 162, 166, 170,
    173, 186, 187, 189, 190, 192, 199, 201, 209, 211, 212, 213, 224, 225, 230, 235, 236, 240, 243, 247, 248,
    250, 251, 254, 258, 262, 263, 267, 268, 269, 270, 274, 276, 277, 289, 290, 298, 303, 305, 309, 316, 317,
    318, 320, 323, 332, 338, 350, 354, 359, 362, 365, 366, 370, 373, 376, 377, 380, 389, 394, 409, 411, 413,
    416, 420, 423, 424, 429, 436, 439, 451, 452, 453, 460, 462, 463, 470, 471, 474, 478, 486, 487, 491, 499,
    518, 526, 531, 537, 540, 544, 548, 554, 560, 561, 563, 570, 571, 573, 576, 579, 587, 589, 594, 596, 609,
    615, 617, 624, 629, 640, 641, 643, 648, 657, 658, 664, 665, 677, 678, 681, 690, 692, 698, 699, 700, 701,
    703, 705, 714, 718, 724, 728, 731, 735, 736, 738, 739, 744, 746, 750, 751, 756, 759, 761, 770, 775,
)
# fmt: on


class TemplateTokens(nn.Module):
    """Rest hands as points, joints first: all 799, or the 216 tokens. Holds nothing that enters a checkpoint.

    Args:
        hand: hand layer that turns betas into rest meshes; None for the one `load_hand_assets` finds.
        mean_pose: fingers bent as in MANO's mean pose, by which the released networks were trained; else flat.

    Raises:
        ValueError: the hand has another number of vertices.
    """

    template_points: torch.Tensor
    template: torch.Tensor
    template_size: torch.Tensor
    mean_pose: torch.Tensor

    def __init__(self, hand: HandModel | None = None, mean_pose: bool = False) -> None:
        super().__init__()
        self.hand = HandModel(load_hand_assets()) if hand is None else hand
        count = len(self.hand.assets.v_template)
        if count != N_VERTICES:
            raise ValueError(
                f"the hand {self.hand.assets.name!r} has {count} vertices; METRO's tokens are a selection of MANO's "
                f"{N_VERTICES}: use MANO or a stand-in of its layout (--mano_dir)"
            )
        mean = torch.as_tensor(self.hand.assets.v_template, dtype=torch.float32)[None]
        self.posed = HandModel(self.hand.assets) if mean_pose else None  # kinematic joints, whatever ``hand`` has
        bent = pca_to_pose(self.hand.assets, torch.zeros(1, 3), torch.zeros(1, 45))
        self.register_buffer("mean_pose", bent, persistent=False)
        self.register_buffer("selection", torch.tensor(VERTICES_195), persistent=False)
        self.register_buffer("template_points", self.of_betas(torch.zeros(1, 10)), persistent=False)
        self.register_buffer("template", self.select(self.template_points), persistent=False)
        self.register_buffer("template_size", hand_size(mean), persistent=False)

    def of_betas(self, betas: torch.Tensor) -> torch.Tensor:
        """`all_points` of the hands of betas (B, 10), in the pose of the template."""
        if self.posed is None:
            return self.all_points(self.hand.rest(betas))
        output = self.posed(self.mean_pose.expand(len(betas), -1, -1, -1), betas)
        return torch.cat([output.joints, output.vertices], dim=1) - output.joints[:, :1]

    def all_points(self, rest_mesh: torch.Tensor) -> torch.Tensor:
        """Joints and vertices (B, 799, 3) of rest meshes (B, 778, 3), metres, the wrist at the origin."""
        joints = mesh_joints(rest_mesh, self.hand)  # at zero pose the kinematic joints are the regressed ones
        return torch.cat([joints, rest_mesh], dim=1) - joints[:, :1]

    def select(self, points: torch.Tensor) -> torch.Tensor:
        """Tokens (B, 216, 3), joints and selected vertices, of `all_points` (B, 799, 3)."""
        return torch.cat([points[:, :N_JOINTS], points[:, N_JOINTS + self.selection]], dim=1)

    def over_mesh(self, values: torch.Tensor) -> torch.Tensor:
        """Values (..., 195) of the vertices that are tokens, on all vertices (..., 778): zero elsewhere."""
        whole = values.new_zeros(*values.shape[:-1], N_VERTICES)
        whole[..., self.selection] = values
        return whole
