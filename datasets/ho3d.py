"""HO-3D's evaluation part (versions 2 and 3), read from its official layout to be predicted and submitted.

Layout: docs/facts.md 4. Its hands are not annotated there: every sample has ``valid`` False, and crops are placed by
the published bounding box of the hand, by the rule of all data sets (twice its larger side).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datasets.bad_files import BadFileError, bad_file, possible_intrinsics, read_json, read_or_skip, reading
from datasets.crop_cache import state_of
from datasets.crop_dataset import CropDataset, DatasetOptions
from datasets.image_crop import read_image, whole_image_box
from template import load_hand_assets
from template.safe_pickle import safe_load
from utils.joints import MANO_TO_STANDARD

logger = logging.getLogger(__name__)

WIDTH, HEIGHT = 640, 480
SPLITS = ("evaluation", "s0_test")
#: Ending of the colour images by version.
ENDINGS = {"v2": "png", "v3": "jpg"}
_OPENGL = np.array([1.0, -1.0, -1.0])
_NAME = re.compile(r"[\w-]+/[\w-]+")
_HOW_TO_GET = "Give the folder that holds evaluation/ and evaluation.txt of HO-3D"


class HO3D(CropDataset):
    """Samples (`datasets.sample`) of the evaluation part; ``image_id`` is the line of evaluation.txt, from 0.

    ``subject_id`` is 0 (a sequence's name tells the person to those who know), betas are zero.

    Attributes:
        names: 'SEQ/ID' of every sample, as evaluation.txt has them.
        version: "v2" or "v3", told by the ending of the first image.
        num_bad_labels: meta files that were unusable (with ``skip_bad``); see `_read_metas`.
    """

    label_hand: ClassVar[dict[str, str]] = {"tips": "ho3d", "joint_type": "kinematic"}

    def __init__(self, root: str | Path, split: str = "evaluation", **options: Any) -> None:
        """Open the evaluation part.

        Args:
            root: the folder with ``evaluation/`` and ``evaluation.txt``.
            split: one of `SPLITS`.
            options: of `datasets.crop_dataset.DatasetOptions`.

        Raises:
            FileNotFoundError: naming the missing file or folder.
            BadFileError: naming a meta file that is unusable, or what is wrong in evaluation.txt.
            ValueError: another split, left hands, or vertices, which are not annotated.
        """
        settings = DatasetOptions(**options)
        settings.refuse("HO-3D", ())
        if split not in SPLITS or settings.with_vertices:
            raise ValueError(f"HO-3D is read for its evaluation only, without vertices: split {split!r}, not {SPLITS}")
        root = Path(root)
        listing = root / "evaluation.txt"
        if not listing.is_file():
            raise FileNotFoundError(f"{listing} is missing. {_HOW_TO_GET}")
        with reading(listing, "a list of SEQ/ID", can_skip=False):
            self.names = listing.read_text(encoding="ascii").split()
        if not self.names:
            raise ValueError(f"{listing} is empty. {_HOW_TO_GET}")
        strange = next((name for name in self.names if not _NAME.fullmatch(name)), None)
        if strange is not None:
            raise bad_file(listing, f"line {strange[:80]!r} is not SEQ/ID", can_skip=False)
        name, times = Counter(self.names).most_common(1)[0]
        if times > 1:
            raise bad_file(listing, f"lists {name} {times} times", can_skip=False)
        first = [root / "evaluation" / _image_name(self.names[0], ending) for ending in ENDINGS.values()]
        present = [version for version, path in zip(ENDINGS, first, strict=True) if path.is_file()]
        if not present:
            raise FileNotFoundError(f"neither {first[0]} nor {first[1].name} is there. {_HOW_TO_GET}")
        self.version = present[0]
        if len(present) > 1:
            logger.warning(
                "%s and %s are both there: the .%s are taken, as of version %s; remove the others if that is wrong",
                first[0], first[1].name, ENDINGS[self.version], self.version,
            )  # fmt: skip
        count = len(self.names)
        intrinsics, boxes, self.num_bad_labels = _read_metas(root, self.names, settings.skip_bad)
        _, sequence = np.unique([name.split("/")[0] for name in self.names], return_inverse=True)
        digest = hashlib.sha256(" ".join(self.names).encode() + boxes.tobytes())
        folders = sorted({(root / "evaluation" / name).parent / "rgb" for name in self.names})
        columns = {
            "K_image": intrinsics,
            "joints": np.zeros((count, 21, 3), np.float32),
            "pose": np.tile(np.eye(3, dtype=np.float32), (count, 16, 1, 1)),
            "betas": np.zeros((count, 10), np.float32),
            "transl": np.zeros((count, 3), np.float32),
            "image_id": np.arange(count, dtype=np.int64),
            "subject_id": np.zeros(count, np.int64),
            "sequence_id": sequence.astype(np.int64),
            "is_left": np.zeros(count, dtype=bool),
            "valid": np.zeros(count, dtype=bool),
        }
        assets = {"right": load_hand_assets(settings.mano_dir, "right")}
        state, keypoints = state_of(root, folders, digest), np.zeros((count, 21, 2))
        super().__init__(root, split, settings, columns, keypoints, boxes, assets, (WIDTH, HEIGHT), state)

    def image_path(self, index: int) -> Path:
        return self.root / "evaluation" / _image_name(self.names[index], ENDINGS[self.version])

    def full_image(self, index: int) -> np.ndarray:
        """The whole image (480, 640, 3) uint8 RGB that ``K_image`` belongs to."""
        return read_image(self.image_path(index), WIDTH, HEIGHT)

    def official_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Joints (N, 21, 3) in **standard** order and vertices (N, 778, 3), float64 metres, **OpenCV** camera frame.

        Raises:
            FileNotFoundError: if evaluation_xyz.json and evaluation_verts.json, published later, are not there.
        """
        lists = []
        for name, size in (("xyz", 21), ("verts", 778)):
            path = self.root / f"evaluation_{name}.json"
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing: the labels were published apart from the data")
            with reading(path, "an array of points", can_skip=False):
                points = np.array(read_json(path, can_skip=False), dtype=np.float64)
            if points.shape != (len(self), size, 3):
                raise bad_file(path, f"holds {points.shape} instead of {(len(self), size, 3)}", can_skip=False)
            lists.append(points * _OPENGL)
        return lists[0][:, list(MANO_TO_STANDARD)], lists[1]


def _image_name(name: str, ending: str) -> str:
    sequence, number = name.split("/")
    return f"{sequence}/rgb/{number}.{ending}"


def _read_meta(sample: Path) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics (3, 3) px and crop box (3,) of a sample, from its meta file."""
    path = sample.parent / "meta" / f"{sample.name}.pkl"
    if not path.is_file():
        raise BadFileError(f"{path} is missing. {_HOW_TO_GET}")
    with reading(path, "a pickle with readable camMat and handBoundingBox"):
        meta: dict[str, Any] = safe_load(path)
        K = np.asarray(meta["camMat"], dtype=np.float64).reshape(3, 3)
        left, top, right, bottom = corners = np.asarray(meta["handBoundingBox"], dtype=np.float64).reshape(4)
    if not (possible_intrinsics(K) and np.isfinite(corners).all()):
        raise bad_file(path, "camMat or handBoundingBox holds impossible numbers")
    if right <= left or bottom <= top:
        raise bad_file(path, f"handBoundingBox {corners.tolist()} is not left, top, right, bottom px")
    return K, np.array([(left + right) / 2, (top + bottom) / 2, 2 * max(right - left, bottom - top)])


def _read_metas(root: Path, names: list[str], skip_bad: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Intrinsics (N, 3, 3) px, boxes (N, 3) px, and how many meta files are unusable.

    With ``skip_bad`` a sample without its meta file is still there, since the server wants every image: it has the
    intrinsics of the sequence's first usable sample (or of any), and its crop shows the whole image.
    """
    told = "shown whole, with another sample's intrinsics"
    metas = [read_or_skip(skip_bad, told, _read_meta, root / "evaluation" / name) for name in names]
    sequences = [name.split("/")[0] for name in names]
    first = {sequence: meta for sequence, meta in zip(reversed(sequences), reversed(metas), strict=True) if meta}
    if not first:
        raise BadFileError(f"{root}: no meta file of the evaluation part is readable. {_HOW_TO_GET}")
    any_K = next(meta for meta in metas if meta)[0]
    whole = whole_image_box(WIDTH, HEIGHT)
    found = [
        meta or (first[sequence][0] if sequence in first else any_K, whole)
        for sequence, meta in zip(sequences, metas, strict=True)
    ]
    count = metas.count(None)
    if count:
        logger.warning("%s: %d unusable meta files of %d", root, count, len(names))
    return np.stack([K for K, _ in found]), np.stack([box for _, box in found]), count
