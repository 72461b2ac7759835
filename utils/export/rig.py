"""The hand as animation programs want it: a rest mesh, 21 named bones, and a checked motion in y-up axes.

Both writers turn the OpenCV camera frame (x right, y down, z forward) half a turn about x: x, -y, -z, so that y is up
and the camera looks along -z, as glTF and BVH programs expect. With M = diag(1, -1, -1) points p become M p and
rotations R become M R M; M is a rotation, so sides and the faces' orientation stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from utils.artifact_checks import HandLike
from utils.joints import FINGERS, MANO_PARENTS, tip_vertices
from utils.mesh_io import CAMERA_TO_GLTF

#: MANO's 16 kinematic joints by the names of its Python packages, then the tips (thumb first).
MANO_NAMES = (
    "wrist",
    *(f"{finger}{level}" for finger in ("index", "middle", "pinky", "ring", "thumb") for level in (1, 2, 3)),
    *(f"{finger}_tip" for finger in ("thumb", "index", "middle", "ring", "pinky")),
)
_PHALANGES = tuple(f"phalanx-{level}" for level in ("proximal", "intermediate", "distal"))
#: The same joints by their names in W3C's WebXR Hand Input. MANO has no finger metacarpals (4 of WebXR's 25 joints);
#: only the names are WebXR's: the bones' axes stay parallel to the wrist's, MANO's rule.
WEBXR_NAMES = (
    "wrist",
    *(f"{finger}-finger-{part}" for finger in ("index", "middle", "pinky", "ring") for part in _PHALANGES),
    *("thumb-metacarpal", "thumb-phalanx-proximal", "thumb-phalanx-distal"),
    *(f"{finger}-tip" for finger in ("thumb", "index-finger", "middle-finger", "ring-finger", "pinky-finger")),
)
JOINT_NAMES = {"mano": MANO_NAMES, "webxr": WEBXR_NAMES}
#: Last kinematic joint of each finger, the tips' order: thumb, index, middle, ring, little.
_DISTAL = {"thumb": 15, "index": 3, "middle": 6, "ring": 12, "little": 9}
#: Parent of each of the 21 bones, MANO's order with the tips behind; -1 for the wrist.
PARENTS = (*MANO_PARENTS, *(_DISTAL[finger] for finger in FINGERS))


class SkinnedHand(HandLike, Protocol):
    """What the writers need of `template.HandAssets` (which this floor cannot import)."""

    @property
    def v_template(self) -> np.ndarray: ...
    @property
    def shapedirs(self) -> np.ndarray: ...
    @property
    def posedirs(self) -> np.ndarray: ...
    @property
    def J_regressor(self) -> np.ndarray: ...
    @property
    def weights(self) -> np.ndarray: ...
    @property
    def faces(self) -> np.ndarray: ...
    @property
    def side(self) -> str: ...


@dataclass(frozen=True)
class Rig:
    """One person's hand at rest and its motion, float64, metres, y up.

    Attributes:
        vertices: (778,3) rest mesh of the betas.
        joints: (21,3) rest positions, MANO's order with the tips behind.
        names: of the 21 joints.
        rotations: (T,16,3,3) relative to the parent.
        root: (T,3) position of the wrist.
    """

    vertices: np.ndarray
    joints: np.ndarray
    names: tuple[str, ...]
    rotations: np.ndarray
    root: np.ndarray

    @property
    def offsets(self) -> np.ndarray:
        """(21,3) rest position minus the parent's, m; the wrist's own position."""
        offsets = self.joints.copy()
        offsets[1:] -= self.joints[list(PARENTS[1:])]
        return offsets


def make_rig(
    path: object, assets: SkinnedHand, pose: np.ndarray, betas: np.ndarray, transl: np.ndarray, joint_names: str
) -> Rig:
    """Check a motion in the OpenCV camera frame and turn it into y-up axes.

    Args:
        path: named in errors.
        assets: of the hand's side.
        pose: (T,16,3,3) rotations relative to the parent, MANO's order.
        betas: (10,).
        transl: (T,3) metres, as `HandModel` takes it: the wrist is at J0(betas) + transl.
        joint_names: one of `JOINT_NAMES`.

    Raises:
        ValueError: unknown names, wrong shapes, no frame, numbers that are not finite, no rotations.
    """
    if joint_names not in JOINT_NAMES:
        raise ValueError(f"{path}: joint_names is {joint_names!r}; choose one of {sorted(JOINT_NAMES)}")
    pose, betas, transl = (np.asarray(values, np.float64) for values in (pose, betas, transl))
    frames = len(pose) if pose.ndim else 0
    if not frames or pose.shape != (frames, 16, 3, 3) or betas.shape != (10,) or transl.shape != (frames, 3):
        shapes = f"pose {pose.shape}, betas {betas.shape} and transl {transl.shape}"
        raise ValueError(f"{path}: {shapes} must be (T,16,3,3), (10,) and (T,3) with at least one frame")
    if not np.isfinite(betas).all():
        raise ValueError(f"{path}: betas {betas} must be finite")
    bad = ~(np.isfinite(pose).all(axis=(1, 2, 3)) & np.isfinite(transl).all(axis=1))
    if bad.any():
        raise ValueError(f"{path}: frame {int(bad.argmax())} has numbers that are not finite; leave such frames out")
    off = np.abs(pose @ pose.swapaxes(-1, -2) - np.eye(3)).max(axis=(2, 3)) > 1e-3
    off |= np.linalg.det(pose) < 0
    if off.any():
        frame, joint = np.argwhere(off)[0]
        raise ValueError(f"{path}: frame {frame}, joint {joint}: {pose[frame, joint].tolist()} is no rotation matrix")
    vertices = assets.v_template + assets.shapedirs @ betas
    # Left hands are right ones mirrored back, and so are their fingertips.
    joints = np.concatenate([assets.J_regressor @ vertices, vertices[list(tip_vertices("manopth"))]])
    return Rig(
        vertices=vertices * CAMERA_TO_GLTF,
        joints=joints * CAMERA_TO_GLTF,
        names=JOINT_NAMES[joint_names],
        rotations=pose * np.outer(CAMERA_TO_GLTF, CAMERA_TO_GLTF),
        root=(joints[0] + transl) * CAMERA_TO_GLTF,
    )
