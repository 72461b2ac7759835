"""A hand's skeleton and motion as BVH (Biovision Hierarchy, 1999), which animation programs read as text."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from utils.export.rig import PARENTS, SkinnedHand, make_rig
from utils.files import atomic_path

_TURNS = "Zrotation Xrotation Yrotation"
_UNITS_PER_METRE = 100.0


def write_bvh(
    path: str | os.PathLike,
    assets: SkinnedHand,
    pose: np.ndarray,
    betas: np.ndarray,
    transl: np.ndarray,
    *,
    fps: float,
    joint_names: str = "mano",
) -> None:
    """Write the 16 joints, the tips as end sites, and the motion, atomically, in centimetres, as most programs expect.

    Axes are x, -y, -z of the OpenCV camera (see `utils.export.rig`). Rotations are R = Rz Rx Ry in degrees. The root's
    offset is zero and its channels are the wrist's position, so that programs that add the two and programs that
    replace one by the other agree. BVH has one frame time: frames at uneven times must be resampled before.

    Args:
        path: ends in ``.bvh``.
        assets, pose, betas, transl, joint_names: as for `MovingHand` and `write_hands_glb`.
        fps: frames a second.

    Raises:
        ValueError: another suffix, a rate not above 0; see `make_rig`.
    """
    path = Path(path)
    if path.suffix != ".bvh":
        raise ValueError(f"{path}: suffix {path.suffix!r} must be .bvh")
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"{path}: fps is {fps}; it must be above 0")
    rig = make_rig(path, assets, pose, betas, transl, joint_names)
    offsets = rig.offsets * _UNITS_PER_METRE
    offsets[0] = 0
    lines, order = ["HIERARCHY"], []

    def write_joint(joint: int, indent: str) -> None:
        children = [child for child, parent in enumerate(PARENTS) if parent == joint]
        if children:
            order.append(joint)
        kind = "ROOT" if joint == 0 else "JOINT" if children else "End"
        lines.extend([f"{indent}{kind} {rig.names[joint] if children else 'Site'}", f"{indent}{{"])
        lines.append(f"{indent}  OFFSET {_numbers(offsets[joint])}")
        if children:
            place = "6 Xposition Yposition Zposition" if joint == 0 else "3"
            lines.append(f"{indent}  CHANNELS {place} {_TURNS}")
        for child in children:
            write_joint(child, indent + "  ")
        lines.append(f"{indent}}}")

    write_joint(0, "")
    with warnings.catch_warnings():  # at the poles one of two angles is free; SciPy chooses 0 and says so
        warnings.filterwarnings("ignore", "Gimbal lock", UserWarning)
        degrees = Rotation.from_matrix(rig.rotations[:, order].reshape(-1, 3, 3)).as_euler("ZXY", degrees=True)
    degrees = np.unwrap(degrees.reshape(len(rig.root), -1), period=360, axis=0)
    rows = np.concatenate([rig.root * _UNITS_PER_METRE, degrees], axis=1)
    lines.extend(["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / fps:.9f}", *map(_numbers, rows)])
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.6f}" for value in values)
