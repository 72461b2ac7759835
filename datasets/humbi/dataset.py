"""HUMBI's right hands, read from the official layout as it is (docs/facts.md 5).

The "full image" of a sample is the published crop of 250 x 250 pixels. HUMBI cut it from a 1920 x 1080 image and
resized each axis on its own, so ``K_image`` has focal lengths that differ by as much, and is exact. World labels
are moved into each camera. ``joints`` are kinematic as everywhere; ``label_joints`` are those of the paper's code:
regressed from the published vertices, with FreiHAND's tips.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from datasets.bad_files import bad_file, read_or_skip
from datasets.crop_dataset import CropDataset, DatasetOptions
from datasets.humbi.files import (
    CROP,
    Camera,
    Crop,
    Reconstruction,
    crop_affine_of,
    find_subjects,
    fingerprint,
    frame_names,
    hand_folder,
    image_name,
    read_cameras,
    read_crops,
    read_reconstruction,
    split_subjects,
)
from datasets.image_crop import joint_boxes, read_image
from template import HandAssets, HandModel, load_hand_assets, pca_to_pose
from utils.camera import project_numpy, transform_intrinsics

logger = logging.getLogger(__name__)

SPLITS = tuple(split_subjects([1, 2, 3]))
#: sequence_id = subject number * this + place of the frame: a frame's cameras see the same hand.
_SEQUENCE_ID_STRIDE = 100_000


class _Frame(NamedTuple):
    """What is known of the right hand of one frame."""

    subject: int
    place: int
    name: str
    reconstruction: Reconstruction
    crops: list[tuple[Camera, Crop]]  # one an image


class HUMBI(CropDataset):
    """Samples (`datasets.sample`) of a HUMBI split: every camera's crop of the right hand in every frame.

    HUMBI publishes no numbering. ``image_id`` counts the split's images: subjects by number, frames by name,
    cameras as list.txt has them.

    Attributes:
        num_bad_labels: frames that were left out because a file was unusable (with ``skip_bad``).
    """

    label_hand: ClassVar[dict[str, str]] = {"tips": "freihand", "joint_type": "regressed"}

    def __init__(self, root: str | Path, split: str = "s0_train", **options: Any) -> None:
        """Open a split.

        Args:
            root: the folder with ``subject_<n>/hand/``.
            split: one of `SPLITS`; see `datasets.humbi.files.split_subjects`. It depends on which subjects are
                there.
            options: of `datasets.crop_dataset.DatasetOptions`.

        Raises:
            FileNotFoundError: naming the missing file or folder.
            BadFileError: naming the file that is unusable.
            ValueError: unknown split or side, or no sample left.
        """
        settings = DatasetOptions(**options)
        settings.refuse("HUMBI", ())
        root = Path(root)
        if split not in SPLITS:
            raise ValueError(f"HUMBI split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
        present = find_subjects(root)
        if len(present) < 3:
            raise ValueError(f"{root} holds the subjects {present}; splits that keep people apart need three")
        subjects = split_subjects(present)[split]
        frames, self.num_bad_labels = _read(root, subjects, settings.skip_bad)
        if not frames:
            raise ValueError(f"{root}: split {split} (subjects {subjects}) has no image of a right hand")
        self._places = [(frame.subject, frame.name, crop.camera) for frame in frames for _, crop in frame.crops]
        assets = load_hand_assets(settings.mano_dir, "right")
        columns, keypoints = _decode(frames, assets, self.label_hand)
        boxes = joint_boxes(keypoints, columns["valid"], CROP, CROP)
        state = f"{fingerprint(root, subjects)} {assets.hash}"
        super().__init__(root, split, settings, columns, keypoints, boxes, {"right": assets}, (CROP, CROP), state)

    def image_path(self, index: int) -> Path:
        """The published crop's file."""
        subject, frame, camera = self._places[index]
        return hand_folder(self.root, subject) / frame / "image_cropped" / "right" / image_name(camera)

    def full_image(self, index: int) -> np.ndarray:
        """The published crop (250, 250, 3) uint8 RGB that ``K_image`` belongs to."""
        return read_image(self.image_path(index), CROP, CROP)


def _read(root: Path, subjects: list[int], skip_bad: bool) -> tuple[list[_Frame], int]:
    """Frames with a right hand, and how many were left out because a file is unusable (with ``skip_bad``)."""
    frames, num_bad, without_hand = [], 0, 0
    for subject in subjects:
        folder = hand_folder(root, subject)
        names = frame_names(folder)
        cameras = read_or_skip(skip_bad, f"skipped every frame of subject {subject}", read_cameras, folder)
        if cameras is None:
            num_bad += len(names)
            continue
        for place, name in enumerate(names):
            found = read_or_skip(skip_bad, "skipped", _read_frame, folder / name, cameras)
            if found is None:
                num_bad += 1
            elif found[1]:
                frames.append(_Frame(subject, place, name, *found))
            else:
                without_hand += 1
    if without_hand:
        logger.warning("%s: left out %d frames without a right hand", root, without_hand)
    return frames, num_bad


def _read_frame(folder: Path, cameras: dict[int, Camera]) -> tuple[Reconstruction | None, list[tuple[Camera, Crop]]]:
    reconstruction, images = read_reconstruction(folder / "reconstruction"), folder / "image_cropped" / "right"
    crops = read_crops(images / "list.txt") if reconstruction is not None and images.is_dir() else []
    present = {path.name for path in images.iterdir()} if crops else set()
    for crop in crops:
        if crop.camera not in cameras:
            raise bad_file(images / "list.txt", f"camera {crop.camera} is not in intrinsic.txt and extrinsic.txt")
        if image_name(crop.camera) not in present:
            raise FileNotFoundError(
                f"{images / image_name(crop.camera)} is missing, but list.txt names it: the data set is half copied"
            )
    return reconstruction, [(cameras[crop.camera], crop) for crop in crops]


@torch.no_grad()
def _decode(
    frames: list[_Frame], assets: HandAssets, label_hand: dict[str, str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of the sample that do not depend on the crop, and keypoints (N, 21, 2), px of the published crop.

    As in the paper's code the translation is the mean offset of the published vertices from the posed hand's.
    The change into a camera, x' = R (x - C), turns the root, and takes the translation t to R (t + J0 - C) - J0
    with J0 the rest wrist (docs/facts.md 1.4).
    """
    hand = HandModel(assets, dtype=torch.float64)
    mano = torch.from_numpy(np.stack([frame.reconstruction.mano for frame in frames]))
    vertices = torch.from_numpy(np.stack([frame.reconstruction.vertices for frame in frames]))
    pose, betas = pca_to_pose(assets, mano[:, 3:6], mano[:, 6:26]), mano[:, 26:36]
    posed = hand(pose, betas)
    transl = (vertices - posed.vertices).mean(dim=1)
    joints = (posed.joints + transl[:, None]).numpy()
    regressor = HandModel(assets, dtype=torch.float64, **label_hand).regressor
    label_joints = (vertices.transpose(1, 2) @ regressor).transpose(1, 2).numpy()
    wrist = posed.rest_joints[:, 0].numpy()

    row = np.repeat(np.arange(len(frames)), [len(frame.crops) for frame in frames])
    images = [image for frame in frames for image in frame.crops]
    R = np.stack([camera.R for camera, _ in images])
    centre = np.stack([camera.centre for camera, _ in images])
    affine = np.stack([crop_affine_of(crop) for _, crop in images])
    K_image = transform_intrinsics(np.stack([camera.K for camera, _ in images]), affine)

    def to_camera(points: np.ndarray) -> np.ndarray:
        return (points[row] - centre[:, None]) @ np.swapaxes(R, 1, 2)

    joints, label_joints = to_camera(joints), to_camera(label_joints)
    camera_pose = pose.numpy()[row]
    camera_pose[:, 0] = R @ camera_pose[:, 0]
    camera_transl = to_camera((transl.numpy() + wrist)[:, None])[:, 0] - wrist[row]
    subject, place = (np.array([frame[column] for frame in frames], dtype=np.int64)[row] for column in (0, 1))
    columns = {
        "K_image": K_image,
        "joints": joints.astype(np.float32),
        "label_joints": label_joints.astype(np.float32),
        "pose": camera_pose.astype(np.float32),
        "betas": betas.numpy()[row].astype(np.float32),
        "transl": camera_transl.astype(np.float32),
        "image_id": np.arange(len(row), dtype=np.int64),
        "subject_id": subject,
        "sequence_id": subject * _SEQUENCE_ID_STRIDE + place,
        "is_left": np.zeros(len(row), dtype=bool),
        "valid": joints[..., 2].min(axis=1) > 0,
    }
    return columns, project_numpy(joints, K_image)
