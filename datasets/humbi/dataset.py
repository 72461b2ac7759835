"""HUMBI's right hands, read from the official layout as it is (docs/facts.md 5).

The "full image" of a sample is the published crop of 250 x 250 pixels. HUMBI cut it from a 1920 x 1080 image and
resized each axis on its own, so ``K_image`` has focal lengths that differ by as much, and is exact. World labels
are moved into each camera. ``joints`` are kinematic as everywhere; ``label_joints`` are those of the paper's code:
regressed from the published vertices, with FreiHAND's tips.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from datasets.bad_files import BadFileError, bad_file
from datasets.crop_dataset import CropDataset
from datasets.crop_placement import joint_boxes
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
from datasets.image_crop import read_image
from datasets.options import DatasetOptions
from template import HandAssets, HandModel, load_hand_assets, pca_to_pose
from utils.camera import project_numpy, transform_intrinsics

logger = logging.getLogger(__name__)

SPLITS = tuple(split_subjects([1, 2, 3]))
#: sequence_id = subject number * this + place of the frame: a frame's cameras see the same hand.
_SEQUENCE_ID_STRIDE = 100_000


@dataclass
class _Table:
    """Raw labels: one row a frame, and one row an image that says which frame it is of."""

    reconstructions: list[Reconstruction] = field(default_factory=list)
    frames: list[tuple[int, int, str]] = field(default_factory=list)  # subject, place, name
    images: list[tuple[int, Camera, Crop]] = field(default_factory=list)  # frame row, camera, crop
    num_bad: int = 0


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
            options: of `datasets.options.DatasetOptions`.

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
        table = _read(root, subjects, settings.skip_bad)
        if not table.images:
            raise ValueError(f"{root}: split {split} (subjects {subjects}) has no image of a right hand")
        self.num_bad_labels = table.num_bad
        self._places = [(*table.frames[row][::2], crop.camera) for row, _, crop in table.images]
        assets = load_hand_assets(settings.mano_dir, "right")
        columns, keypoints = _decode(table, assets, self.label_hand)
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


def _read(root: Path, subjects: list[int], skip_bad: bool) -> _Table:
    table, without_hand = _Table(), 0
    for subject in subjects:
        folder = hand_folder(root, subject)
        try:
            cameras = read_cameras(folder)
        except BadFileError as error:
            if not skip_bad:
                raise
            logger.warning("skipped every frame of subject %d: %s", subject, error)
            table.num_bad += len(frame_names(folder))
            continue
        for place, name in enumerate(frame_names(folder)):
            images = folder / name / "image_cropped" / "right"
            try:
                reconstruction = read_reconstruction(folder / name / "reconstruction")
                crops = read_crops(images / "list.txt") if reconstruction is not None and images.is_dir() else []
                _check_images(images, crops, cameras)
            except BadFileError as error:
                if not skip_bad:
                    raise
                logger.warning("skipped: %s", error)
                table.num_bad += 1
                continue
            if not crops:
                without_hand += 1
                continue
            table.images += [(len(table.frames), cameras[crop.camera], crop) for crop in crops]
            table.frames.append((subject, place, name))
            table.reconstructions.append(reconstruction)
    if without_hand:
        logger.warning("%s: left out %d frames without a right hand", root, without_hand)
    return table


def _check_images(folder: Path, crops: list[Crop], cameras: dict[int, Camera]) -> None:
    present = {path.name for path in folder.iterdir()} if crops else set()
    for crop in crops:
        if crop.camera not in cameras:
            raise bad_file(folder / "list.txt", f"camera {crop.camera} is not in intrinsic.txt and extrinsic.txt")
        if image_name(crop.camera) not in present:
            raise FileNotFoundError(
                f"{folder / image_name(crop.camera)} is missing, but list.txt names it: the data set is half copied"
            )


@torch.no_grad()
def _decode(table: _Table, assets: HandAssets, label_hand: dict[str, str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of the sample that do not depend on the crop, and keypoints (N, 21, 2), px of the published crop.

    As in the paper's code the translation is the mean offset of the published vertices from the posed hand's.
    The change into a camera, x' = R (x - C), turns the root, and takes the translation t to R (t + J0 - C) - J0
    with J0 the rest wrist (docs/facts.md 1.4).
    """
    hand = HandModel(assets, dtype=torch.float64)
    mano = torch.from_numpy(np.stack([frame.mano for frame in table.reconstructions]))
    vertices = torch.from_numpy(np.stack([frame.vertices for frame in table.reconstructions]))
    pose, betas = pca_to_pose(assets, mano[:, 3:6], mano[:, 6:26]), mano[:, 26:36]
    posed = hand(pose, betas)
    transl = (vertices - posed.vertices).mean(dim=1)
    joints = (posed.joints + transl[:, None]).numpy()
    regressor = HandModel(assets, dtype=torch.float64, **label_hand).regressor
    label_joints = (vertices.transpose(1, 2) @ regressor).transpose(1, 2).numpy()
    wrist = posed.rest_joints[:, 0].numpy()

    row = np.array([frame for frame, _, _ in table.images])
    R = np.stack([camera.R for _, camera, _ in table.images])
    centre = np.stack([camera.centre for _, camera, _ in table.images])
    affine = np.stack([crop_affine_of(crop) for _, _, crop in table.images])
    K_image = transform_intrinsics(np.stack([camera.K for _, camera, _ in table.images]), affine)

    def to_camera(points: np.ndarray) -> np.ndarray:
        return (points[row] - centre[:, None]) @ np.swapaxes(R, 1, 2)

    joints, label_joints = to_camera(joints), to_camera(label_joints)
    camera_pose = pose.numpy()[row]
    camera_pose[:, 0] = R @ camera_pose[:, 0]
    camera_transl = to_camera((transl.numpy() + wrist)[:, None])[:, 0] - wrist[row]
    subject, place = (np.array([frame[column] for frame in table.frames], dtype=np.int64)[row] for column in (0, 1))
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
