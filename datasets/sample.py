"""The sample: the one dict that every data set of this repository returns.

Whatever the data set, the hand in a sample is a RIGHT hand: a left hand's image, intrinsics, points
and pose were mirrored on entry (x -> -x, u -> W - 1 - u) and ``is_left`` says so. Samples carry no
augmentation; `datasets.augment.prepare_batch` makes network inputs from batches of them.

The table is `SAMPLE_SPEC`. Metres, pixels, radians; the camera frame is OpenCV's; pixel centres lie
at integer coordinates (`utils.camera`). C is the crop size.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.bad_files import read_json
from template import HandAssets, HandModel, load_hand_assets
from template.assets import STAND_INS
from template.sides import labelled_hands

logger = logging.getLogger(__name__)

_SAME_HAND = 1e-3  # metres: labels that are further off are another hand model's, or contradict each other
_COMPARED = 256  # hands


class Field(NamedTuple):
    """One key of the sample: its shape ("C" stands for the crop size), dtype and meaning."""

    shape: tuple[int | str, ...]
    dtype: str
    meaning: str


SAMPLE_SPEC: dict[str, Field] = {
    "image": Field(("C", "C", 3), "uint8", "RGB; square of 2 x the larger side of the joints' 2D box; black outside"),
    "K": Field((3, 3), "float32", "px; intrinsics of this crop"),
    "K_image": Field((3, 3), "float32", "px; intrinsics of the full image (mirrored if is_left)"),
    "crop_to_image": Field((2, 3), "float32", "affine from crop px to px of the full image (mirrored if is_left)"),
    "keypoints_2d": Field((21, 2), "float32", "px of the crop, standard order"),
    "joints": Field((21, 3), "float32", "m; camera frame, standard order, kinematic; tips of the hand's own side"),
    "vertices": Field((778, 3), "float32", "m; camera frame; only with with_vertices=True"),
    "label_joints": Field(
        (21, 3), "float32", "m; camera frame; the official joints where they are not kinematic ones with manopth's tips"
    ),
    "mask": Field(("C", "C"), "uint8", "of the crop: 255 on the hand, 0 elsewhere; only with with_mask=True"),
    "pose": Field((16, 3, 3), "float32", "rotation matrices in MANO's order, root first, mean pose included"),
    "betas": Field((10,), "float32", "shape coefficients"),
    "label_betas": Field(
        (10,), "float32", "the official betas where they mean another model's hand (MANO_LEFT as released)"
    ),
    "transl": Field((3,), "float32", "m; MANO's free translation: wrist = J0(betas) + transl"),
    "image_id": Field((), "int64", "the official index in the data set's split"),
    "subject_id": Field((), "int64", "the official number of the person; 0 in FreiHAND, which does not tell"),
    "sequence_id": Field((), "int64", "unique number of the sequence in the data set, for bootstraps"),
    "is_left": Field((), "bool", "the hand was a left one and everything here is mirrored"),
    "valid": Field((), "bool", "joints and pose are annotated and the image could be read"),
    "readable": Field((), "bool", "the image could be read; else it is black"),
}

#: Keys that a sample may lack.
OPTIONAL_KEYS = ("vertices", "label_joints", "label_betas", "mask", "readable")


def check_sample(sample: Mapping[str, Any]) -> None:
    """Check one sample (NumPy arrays and scalars) against `SAMPLE_SPEC`.

    Raises:
        ValueError: naming the key, for a missing or unknown key, a wrong shape or dtype, a number that is
            not finite, an image that is not square, or a pose that is not made of rotations.
    """
    missing = [key for key in SAMPLE_SPEC if key not in sample and key not in OPTIONAL_KEYS]
    unknown = [key for key in sample if key not in SAMPLE_SPEC]
    if missing or unknown:
        raise ValueError(f"sample lacks {missing} and has unknown {unknown}; datasets/sample.py lists the keys")
    size = np.asarray(sample["image"]).shape[0]
    for key, value in sample.items():
        field, array = SAMPLE_SPEC[key], np.asarray(value)
        shape = tuple(size if extent == "C" else extent for extent in field.shape)
        if array.shape != shape or array.dtype != np.dtype(field.dtype):
            raise ValueError(
                f"sample[{key!r}] is {array.dtype} {array.shape}; it must be {field.dtype} {shape} ({field.meaning})"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"sample[{key!r}] of image {sample['image_id']} holds numbers that are not finite")
    pose = np.asarray(sample["pose"], dtype=np.float64)
    deviation = np.abs(pose @ np.swapaxes(pose, -1, -2) - np.eye(3)).max()
    if deviation > 1e-4 or np.linalg.det(pose).min() < 0:
        raise ValueError(f"sample['pose'] of image {sample['image_id']} is no rotation (off by {deviation:.2g})")


def warn_of_another_hand(
    root: Path, columns: dict[str, np.ndarray], assets: dict[str, HandAssets], label_hand: Mapping[str, Any]
) -> None:
    """A warning if the labelled joints are not those of the labelled pose, shape and place; of some hands.

    ``columns`` are samples by key, ``assets`` hands by side; ``label_hand``: see `ColumnDataset`.
    """
    models = {side: HandModel(hand, **label_hand) for side, hand in assets.items()}
    keys = [key for key in ("pose", "betas", "transl", "is_left", "label_betas") if key in columns]
    for side in assets:
        rows = np.flatnonzero(columns["valid"] & (columns["is_left"] == (side == "left")))
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _COMPARED)).astype(int)]
        if len(rows) == 0:
            continue
        own = labelled_hands(models, *(columns[key][rows] for key in keys))[0]
        labels = columns["label_joints" if "label_joints" in columns else "joints"][rows]
        apart = np.linalg.norm(own - labels, axis=-1)
        of_joints, of_hands = np.median(apart, axis=0), np.median(apart, axis=1)
        if of_joints.max() > _SAME_HAND:
            logger.warning(
                "%s: labelled joints of %s hands lie %.1f mm (median of joint %d, %.1f of all) from those that the "
                "hand model %s (%s) gives for the labelled pose and shape: the labels were made with another one (give "
                "MANO_%s.pkl of version 1.2, as released, with --mano_dir), or their order, unit, side or camera is "
                "wrong",
                root, side, of_joints.max() * 1000, of_joints.argmax(), np.median(apart) * 1000, assets[side].name,
                assets[side].hash, side.upper(),
            )  # fmt: skip
            _tell_synthetic_hand(root, assets[side].hash)
        elif (of_hands > _SAME_HAND).any():
            first = rows[of_hands.argmax()]
            logger.warning(
                "%s: of %d %s hands that were compared %d have labelled joints that are not those of their labelled "
                "pose and shape (image %d: %.1f mm off): are all labels and cameras of the same pictures?",
                root, len(rows), side, (of_hands > _SAME_HAND).sum(), columns["image_id"][first], of_hands.max() * 1000,
            )  # fmt: skip


def _tell_synthetic_hand(root: Path, used: str) -> None:
    """Of a synthetic set that was made with another hand than the one in use (its hash): with which."""
    if not (root / "synthetic.json").is_file():
        return
    made = read_json(root / "synthetic.json").get("hand_model")
    if made in (None, used):
        return
    file = next((path for path in STAND_INS if load_hand_assets(path).hash == made), None)
    logger.warning("%s: it is synthetic, made with the hand model %s: --mano_dir %s", root, made, file or "of that")
