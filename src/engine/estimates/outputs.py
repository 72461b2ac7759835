"""What ``run.py --phase personalise`` leaves in its folder."""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from src.engine.estimates.survey import Survey
from src.estimators.pictures import find_picture
from src.personalization.calibration.population import Population
from src.personalization.estimates.personalise import Personalised
from src.personalization.solver.status import Status, usable
from src.personalization.terms.hand_size import Length, describe_lengths
from src.photos.gallery import Gallery
from src.photos.image import UnusableImage, read_photo
from src.photos.result import Result, Sources
from src.photos.shape_filter import identity_length, people_length
from template import HandAssets, HandModel
from utils.artifacts import META_FIELDS, PREDICTIONS_SCHEMA, ROW_ARRAYS, Identity, Predictions
from utils.files import atomic_path

logger = logging.getLogger(__name__)

ROWS = "rows.npz"
#: Side of the box around the keypoints.
_MARGIN = 1.2


class RowsFile(contextlib.AbstractContextManager):
    """`save_predictions` in parts, of more hands than memory holds: rows are added in order, and the file is there once
    the block ends without an error.

    Args:
        path: .npz, as `load_predictions` reads it. count: rows that will be added; name_length: of the longest
            image_name.
    """

    def __init__(self, path: Path, count: int, name_length: int) -> None:
        self._path, self._count, self._name_length = path, count, name_length
        self._folder = Path(tempfile.mkdtemp(prefix=".rows.", dir=path.parent))  # beside it: it may be large
        self._columns: dict[str, IO[bytes]] = {}
        self._meta: dict[str, np.ndarray] = {}

    def add(self, rows: Predictions) -> None:
        """More rows, of the same columns."""
        for name in ROW_ARRAYS:
            value = getattr(rows, name)
            if value is not None:
                value = value.astype(f"<U{self._name_length}") if name == "image_name" else value
                if name not in self._columns:
                    self._columns[name] = open(self._folder / f"{name}.npy", "wb")  # noqa: SIM115
                    shape = (self._count, *value.shape[1:])
                    header = {"descr": value.dtype.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(self._columns[name], header)
                self._columns[name].write(np.ascontiguousarray(value).tobytes())
        meta: dict[str, Any] = {name: getattr(rows, name) for name in META_FIELDS}
        self._meta = {name: np.array(value) for name, value in meta.items()} | {"schema": np.array(PREDICTIONS_SCHEMA)}

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for handle in self._columns.values():
            handle.close()
        try:
            if kind is None:
                for name, value in self._meta.items():
                    np.save(self._folder / f"{name}.npy", value)
                with atomic_path(self._path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                    for name in (*self._columns, *self._meta):
                        archive.write(self._folder / f"{name}.npy", f"{name}.npy")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


class Outputs(contextlib.ExitStack):
    """Writes what comes batch by batch: rows.npz, changed.txt (what was changed in their files), predictions.json, and
    index.html where the pictures are there. Whatever ends the block, page and predictions hold what was found.

    Args:
        seen: how many hands there will be. people: who says what sizes are likely.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        output: Path,
        seen: Survey,
        identities: dict[int, Identity],
        assets: HandAssets,
        people: Population,
    ) -> None:
        super().__init__()
        self._images, self._assets, self._people = args.images, assets, people_length(people, assets)
        self._labels: Counter[str] = Counter()
        title = f"{args.format}'s hands, personalised"
        lead = f"Hand model {assets.name}; one shape a person, laid on the keypoints of {args.format}."
        about = {"estimator": args.format, "hand_model": {"name": assets.name, "hash": assets.hash},
                 "identities": {str(n): describe_lengths(one, assets) for n, one in identities.items()}}  # fmt: skip
        self._rows = self.enter_context(RowsFile(output / ROWS, int(seen.first[-1]), seen.name_length))
        changed = self.enter_context(atomic_path(output / "changed.txt"))
        self._changed = self.enter_context(open(changed, "w", encoding="utf-8"))
        self._gallery = self.enter_context(Gallery(output, title, lead, about, plots=False))

    def add(self, found: Personalised, changed: list[str]) -> None:
        """A batch of hands, and a line for each that was changed."""
        self._rows.add(found.rows)
        self._changed.writelines(f"{line}\n" for line in changed)
        for row, hand in enumerate(results(found, self._assets, self._people)):
            name = str(found.rows.image_name[row]) if found.rows.image_name is not None else f"image {row}"
            label = f"{Path(name).stem}_{hand.side}"
            self._labels[label] += 1  # several people in a picture, or pictures of one name in several folders
            label += f"_{self._labels[label]}" * (self._labels[label] > 1)
            if not bool(usable(torch.as_tensor(found.rows.status[row : row + 1]))[0]):
                self._gallery.fail(label, name, Status(int(found.rows.status[row])).name.lower().replace("_", " "))
                continue
            picture = _picture(self._images, name)
            if picture is None:
                self._gallery.note(label, name, hand)
            else:
                self._gallery.add(label, name, picture, hand)


def results(found: Personalised, assets: HandAssets, people: Length) -> list[Result]:
    """Every hand in its own picture's frame, left hands left; ``people``: how long their hands are."""
    rows, hands = found.rows, []
    posed = HandModel(assets, dtype=torch.float64)(
        *(torch.as_tensor(value).double() for value in (rows.pose, rows.betas, rows.transl))
    )
    for row in range(len(rows)):
        subject = int(rows.subject_id[row])
        identity = found.identities.get(subject) or next(iter(found.identities.values()))
        pixels = rows.keypoints_2d[row].astype(np.float64)
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        confidence = np.ones(21) if rows.keypoint_confidence is None else rows.keypoint_confidence[row]
        width = int(round(2 * rows.K[row, 0, 2])) if rows.image_size is None else int(rows.image_size[row, 0])
        hand = Result(
            width=width,
            K=rows.K[row].astype(np.float64),
            box=np.array([*((low + high) / 2), _MARGIN * (high - low).max()]),
            keypoints=pixels,
            confidence=confidence,
            vertices=posed.vertices[row].numpy(),
            joints=found.joints[row],
            assets=assets,
            reprojection_px=float(found.reprojection_px[row]),
            pose=rows.pose[row],
            transl=rows.transl[row],
            betas=rows.betas[row],
            length=identity_length(identity, people, f"identity ({identity.scale_evidence})"),
            sources=Sources(rows.camera, rows.model_name, rows.model_name, rows.model_name),
            notes={"subject": subject} | ({"track": int(rows.sequence_id[row])} if rows.sequence_id[row] else {}),
        )
        hands.append(hand.mirrored() if rows.is_left[row] else hand)
    return hands


def _picture(folder: str | None, name: str) -> np.ndarray | None:
    if folder is None:
        return None
    if (path := find_picture(folder, name)) is None:
        logger.warning("%s is not in %s; it is not on the page", name, folder)
        return None
    try:
        return read_photo(path, path.stem).image
    except UnusableImage as error:
        logger.warning("%s: %s; it is not on the page", path, error)
        return None
