"""One reconstructed hand as the demo shows and writes it: in the picture's own frame, left hands left."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from src.personalization.terms.hand_size import Length
from template import mirror_pose
from utils.camera import mirror_intrinsics

_FLIP = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class HandLength(Length):
    """Wrist to middle fingertip of the stretched hand; ``source`` says who says so."""

    source: str = ""


@dataclass(frozen=True)
class HandResult:
    """A hand in a picture of ``width`` pixels, or in its mirror image while it is worked on (see `mirrored`).

    Attributes:
        K: (3,3) px; box: (3,) tight square, centre x, centre y, side, px.
        keypoints: (21,2) px, standard order, and confidence: (21,) in [0,1]: what was seen.
        vertices: (V,3) and joints: (21,3), metres, OpenCV camera frame; faces: (F,3).
        pose: (16,3,3) and transl: (3,) m of the hand model of that side; None from networks that give only a mesh.
        betas: (10,) or None.
        length: of the stretched hand, or None.
        reprojection_px: root mean square distance of joints and keypoints.
        mask: (h,w) in 0..1, the silhouette that the network saw, and mask_to_image: (2,3) from its px; or None.
        notes: further facts for whoever reads the result.
    """

    width: int
    K: np.ndarray
    box: np.ndarray
    keypoints: np.ndarray
    confidence: np.ndarray
    vertices: np.ndarray
    joints: np.ndarray
    faces: np.ndarray
    reprojection_px: float
    pose: np.ndarray | None = None
    transl: np.ndarray | None = None
    betas: np.ndarray | None = None
    length: HandLength | None = None
    is_left: bool = False
    mask: np.ndarray | None = None
    mask_to_image: np.ndarray | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def mirrored(self) -> HandResult:
        """The same hand in the mirror image of the picture: the other side's."""
        pose = self.pose
        if pose is not None:
            pose = mirror_pose(torch.as_tensor(pose)).numpy()
        affine = self.mask_to_image
        if affine is not None:
            affine = np.stack([-affine[0] + [0, 0, self.width - 1], affine[1]])
        return replace(
            self,
            K=mirror_intrinsics(self.K, self.width),
            box=mirror_box(self.box, self.width),
            keypoints=mirror_points(self.keypoints, self.width),
            vertices=self.vertices * _FLIP,
            joints=self.joints * _FLIP,
            faces=self.faces[:, ::-1],
            pose=pose,
            transl=None if self.transl is None else self.transl * _FLIP,
            is_left=not self.is_left,
            mask_to_image=affine,
        )

    @property
    def side(self) -> str:
        """"left" or "right"."""
        return "left" if self.is_left else "right"

    @property
    def distance_m(self) -> float:
        """From the camera to the wrist."""
        return float(np.linalg.norm(self.joints[0]))


def mirror_points(points: np.ndarray, width: int) -> np.ndarray:
    """Points (...,2) px after an image of ``width`` px was flipped left to right: u -> width - 1 - u."""
    return np.concatenate([width - 1 - points[..., :1], points[..., 1:]], axis=-1)


def mirror_box(box: np.ndarray, width: int) -> np.ndarray:
    """Box (3,), centre x, centre y, side, px after the flip."""
    return np.array([width - 1 - box[0], box[1], box[2]])
