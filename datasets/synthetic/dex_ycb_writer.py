"""DexYCB's files (docs/facts.md 1.1 to 1.5): calibration, labels, images, meta.yml and pose.npz.

A sequence's pictures and labels come first, then ``meta.yml`` and last ``pose.npz``, so that a
sequence with a ``pose.npz`` is a whole one.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from scipy.spatial.transform import Rotation

from datasets.dex_ycb.splits import SERIALS
from datasets.synthetic.scene.cameras import IMAGE_HEIGHT, IMAGE_WIDTH, Rig
from datasets.synthetic.scene.motion import Motion
from datasets.synthetic.scene.objects import CATALOGUE
from datasets.synthetic.scene.population import MASTER_SERIAL, subject_name
from datasets.synthetic.scene.render import Picture
from template import HandModel, pose_to_pca
from utils.camera import project_numpy
from utils.files import atomic_path, write_text


def sequence_labels(motion: Motion, hand: HandModel, betas: np.ndarray, rig: Rig) -> dict[str, dict[str, np.ndarray]]:
    """All labels (F, ...) but the segmentation, by camera and key, from the true poses (table frame)."""
    found = {}
    for serial in SERIALS:
        to_camera = np.linalg.inv(rig.camera_to_table[serial])
        joints = motion.joints @ to_camera[:3, :3].T + to_camera[:3, 3]
        labels = {
            "pose_y": (to_camera @ motion.object_poses)[..., :3, :].astype(np.float32),
            "pose_m": hand_vectors(motion, hand, betas, to_camera),
            "joint_3d": joints[:, None].astype(np.float32),
            "joint_2d": project_numpy(joints, rig.K[serial])[:, None].astype(np.float32),
        }
        # DexYCB has no annotation where no joint is in the image.
        inside = (labels["joint_2d"] >= -0.5) & (labels["joint_2d"] <= [IMAGE_WIDTH - 0.5, IMAGE_HEIGHT - 0.5])
        is_invalid = ~(motion.present & inside.all(axis=-1).any(axis=(1, 2)))
        labels["pose_m"][is_invalid] = 0
        labels["joint_3d"][is_invalid] = labels["joint_2d"][is_invalid] = -1
        found[serial] = labels
    return found


def write_frame(folder: Path, frame: int, picture: Picture, labels: dict[str, np.ndarray], quality: int) -> None:
    """Save the image, the labels and (if it was rendered) the depth in millimetres."""
    write_image(folder / f"color_{frame:06d}.jpg", picture.bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if picture.depth is not None:
        millimetres = np.round(picture.depth * 1000).clip(0, 65535).astype(np.uint16)
        write_image(folder / f"aligned_depth_to_color_{frame:06d}.png", millimetres, [])
    # What np.savez_compressed writes, at the fastest compression level (a mask is small anyway).
    with zipfile.ZipFile(folder / f"labels_{frame:06d}.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in {"seg": picture.seg, **labels}.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED, 1)


def finish_sequence(folder: Path, subject: int, motion: Motion, hand: HandModel, betas: np.ndarray, rig: Rig) -> None:
    """Write meta.yml, then pose.npz (world frame): the sequence is whole."""
    meta = {
        "serials": list(SERIALS),
        "num_frames": len(motion.pose),
        "extrinsics": rig.extrinsics_id,
        "mano_calib": [mano_id(subject, motion.side)],
        "mano_sides": [motion.side],
        "ycb_ids": [item.ycb_id for item in motion.objects],
        "ycb_grasp_ind": 0,
    }
    write_text(folder / "meta.yml", yaml.safe_dump(meta, sort_keys=False))
    pose_m = hand_vectors(motion, hand, betas, rig.table_to_world)
    pose_m[~motion.present] = 0
    objects = rig.table_to_world @ motion.object_poses
    quaternions = Rotation.from_matrix(objects[..., :3, :3].reshape(-1, 3, 3)).as_quat()  # x, y, z, w
    pose_y = np.concatenate([quaternions.reshape(*objects.shape[:2], 4), objects[..., :3, 3]], axis=-1)
    with atomic_path(folder / "pose.npz") as temporary:
        np.savez_compressed(temporary, pose_y=pose_y.astype(np.float32), pose_m=pose_m)


def hand_vectors(motion: Motion, hand: HandModel, betas: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """pose_m (F, 1, 51) float32 in the frame that ``transform`` (4, 4) takes the table frame to.

    x' = A x + b: the global rotation becomes A R, the translation A (t + J0) + b - J0 (docs/facts.md 1.4).
    """
    rest_wrist = hand.rest_joints(torch.as_tensor(betas)[None])[0, 0].numpy()
    pose = motion.pose.copy()
    pose[:, 0] = transform[:3, :3] @ pose[:, 0]
    transl = (motion.transl + rest_wrist) @ transform[:3, :3].T + transform[:3, 3] - rest_wrist
    global_orient, coefficients = pose_to_pca(hand.assets, torch.as_tensor(pose))
    return np.hstack([global_orient.numpy(), coefficients.numpy(), transl])[:, None].astype(np.float32)


def mano_id(subject: int, side: str) -> str:
    """Name of a subject's hand calibration."""
    name = subject_name(subject)
    return f"{name[:8]}_{140000 + subject % 60:06d}_{name[9:]}_{side}"


def write_intrinsics(root: Path, rig: Rig) -> None:
    """Intrinsics of the eight cameras, the same for every subject."""
    for serial in SERIALS:
        K = rig.K[serial]
        values = {"fx": K[0, 0], "fy": K[1, 1], "ppx": K[0, 2], "ppy": K[1, 2]}
        text = yaml.safe_dump({"color": {key: float(value) for key, value in values.items()}})
        write_text(root / "calibration" / "intrinsics" / f"{serial}_{IMAGE_WIDTH}x{IMAGE_HEIGHT}.yml", text)


def write_calibration(root: Path, subject: int, rig: Rig, betas: np.ndarray) -> None:
    """One subject's extrinsics, and the subject's betas for both sides; kept where they already are."""
    poses = {"apriltag": rig.table_to_world, **{serial: rig.camera_to_world(serial) for serial in SERIALS}}
    # yaml.dump, not safe_dump: the official files carry !!python/tuple tags.
    extrinsics = {name: tuple(float(value) for value in pose[:3].ravel()) for name, pose in poses.items()}
    files = {f"extrinsics_{rig.extrinsics_id}/extrinsics.yml": {"extrinsics": extrinsics, "master": MASTER_SERIAL}}
    for side in ("left", "right"):
        files[f"mano_{mano_id(subject, side)}/mano.yml"] = {"betas": [float(value) for value in betas]}
    for name, content in files.items():
        path = root / "calibration" / name
        if not path.is_file():
            write_text(path, yaml.dump(content))


def write_object_models(root: Path) -> None:
    """The catalogue's meshes where DexYCB keeps YCB's: models/<name>/textured_simple.obj (without textures)."""
    for item in CATALOGUE:
        mesh = item.mesh()
        lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices]
        lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
        write_text(root / "models" / item.name / "textured_simple.obj", "\n".join(lines) + "\n")


def write_image(path: Path, image: np.ndarray, options: list[int]) -> None:
    """Encode an image (BGR or grey) by the suffix of its name, with OpenCV's ``options``."""
    is_good, data = cv2.imencode(path.suffix, image, options)
    if not is_good:
        raise RuntimeError(f"{path}: OpenCV could not encode the image")
    path.write_bytes(data.tobytes())
