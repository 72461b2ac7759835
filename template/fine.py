"""The fine hand: a mesh with nails, creases, forearm and UVs, skinned by the same joints as the coarse hand.

It is for pictures only; whatever is measured stays on the 778 vertices. ``template/hand_fine.npz`` belongs to
``template/stand_in_2.npz`` and to no other hand model. Its arrays (V vertices, F faces, T texture points):

======== ============ =============================================================================
vertices (V, 3)       metres, the mean hand at rest (flat), in the frame of the hand model
faces    (F, 3)       triangles, seen from outside counter-clockwise
uv       (T, 2)       texture points, 0..1, v upwards; no triangle crosses a seam
uv_faces (F, 3)       the texture points of each face's corners
weights  (V, 16)      skinning weights, MANO's joint order, rows sum to 1, four joints at most
shapedirs (V, 3, 10)  metres a unit of the hand model's betas
carriers (V, 3)       coarse vertices whose pose correctives are taken over, and
carried  (V, 3)       their shares (rows sum to 1)
region   (V,)         number into `REGIONS`
nail     (V,)         0..1, how much of a finger nail the vertex is
palmar   (V,)         0..1, 1 on the palm's side of hand and fingers, 0 on the back
======== ============ =============================================================================
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from template.assets import TEMPLATE_DIR, HandAssets
from template.layer import checked_hands
from template.reference import forward_kinematics, skin
from utils.joints import FINGERS

FINE_PATH = TEMPLATE_DIR / "hand_fine.npz"
REGIONS = ("forearm", "palm", "back", *FINGERS)


def load_fine_mesh(path: str | os.PathLike = FINE_PATH) -> dict[str, np.ndarray]:
    """The arrays of the file, floats as float64 and indices as int64.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds objects instead of plain arrays, which are never unpickled.
    """
    with np.load(Path(path), allow_pickle=False) as archive:
        return {
            key: archive[key].astype(np.float64 if archive[key].dtype.kind == "f" else np.int64)
            for key in archive.files
        }


class FineHand(nn.Module):
    """Poses the fine mesh (SMPL's equations, as `template.HandModel`); the joints are the coarse hand's.

    Args:
        assets: of ``load_hand_assets("template/stand_in_2.npz")``, a right hand.
        fine: of `load_fine_mesh`.
        dtype: of the buffers.
    """

    def __init__(self, assets: HandAssets, fine: dict[str, np.ndarray], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if assets.side != "right":
            raise ValueError(f"the fine mesh is a right hand, the assets are of the {assets.side}; mirror the result")
        if assets.name != "stand-in-2":
            raise ValueError(
                f"the fine mesh is of template/stand_in_2.npz, not of {assets.name!r}: its betas are others"
            )
        template = np.concatenate([assets.v_template[..., None], assets.shapedirs], axis=-1)
        values = {
            "joint_basis": np.einsum("jv,vcs->jcs", assets.J_regressor, template),  # (16, 3, 11)
            "shape_basis": np.concatenate([fine["vertices"][..., None], fine["shapedirs"]], axis=-1),  # (V, 3, 11)
            "posedirs": assets.posedirs,  # (778, 3, 135)
            "carried": fine["carried"],  # (V, 3)
            "weights": (fine["weights"] / fine["weights"].sum(axis=1, keepdims=True)).T,
        }
        for name, value in values.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=dtype), persistent=False)
        self.register_buffer("carriers", torch.as_tensor(fine["carriers"], dtype=torch.int64), persistent=False)

    def forward(self, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None = None) -> torch.Tensor:
        """Posed vertices (B, V, 3), metres.

        Args:
            pose: (B, 16, 3, 3) rotation matrices relative to the parent, MANO order.
            betas: (B, 10) of the coarse hand.
            transl: (B, 3) metres, or None for zero.

        Raises:
            ValueError: a shape or dtype is wrong or the batch sizes differ.
        """
        pose, betas, transl = checked_hands(pose, betas, transl, self.weights.dtype)
        shape = torch.cat([torch.ones_like(betas[:, :1]), betas], dim=1)
        joints = torch.einsum("jcs,bs->bjc", self.joint_basis, shape)
        feature = (pose[:, 1:] - torch.eye(3, dtype=pose.dtype, device=pose.device)).flatten(1)
        rest = torch.einsum("vcs,bs->bvc", self.shape_basis, shape)
        correctives = torch.einsum("vcf,bf->bvc", self.posedirs, feature)  # of the 778 coarse vertices
        rest = rest + torch.einsum("vk,bvkc->bvc", self.carried, correctives[:, self.carriers])
        transforms = forward_kinematics(pose, joints)
        return skin(rest.transpose(1, 2), transforms, joints, transl, self.weights).transpose(1, 2)
