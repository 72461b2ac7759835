"""How to open a data set: the same options for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

#: Options that only some data sets know.
_SPECIAL = ("with_mask", "include_invalid", "paper_filter", "crop", "versions")


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """Keyword arguments of every data set (`datasets.build_dataset`).

    Attributes:
        side: "right", "left" or "both"; left hands are mirrored into right ones, ``is_left`` is kept.
        crop_size: side of the crops, pixels.
        with_vertices: add ``vertices``, posed by the hand model of the sample's own side.
        with_mask: add ``mask`` (FreiHAND's training part).
        include_invalid: keep frames without annotation; ``valid`` is False and the image shows everything (DexYCB).
        paper_filter: the paper's selection: right hands with all joints inside the image (DexYCB; docs/facts.md 1.8).
        skip_bad: leave out samples whose labels are unusable, and mark those whose picture is unusable with ``valid``
            False (black image), instead of raising. Both are counted and logged.
        allow_missing_subjects: accept a root that lacks subjects of the split; image ids then count the present ones
            only (DexYCB; elsewhere it means nothing).
        crop: "joints" for the rule of all data sets (twice the box of the joints), "image" for the whole image, as the
            CMR networks see it (FreiHAND).
        versions: backgrounds of FreiHAND's training images, one or several names, or several in a string with commas.
        mano_dir: folder or file of the hand model, as in `template.load_hand_assets`.
        cache: folder for labels and crops; made on first use. None: read the files.
        workers: processes or threads that build the cache; None: one a core.
    """

    side: str = "right"
    crop_size: int = 128
    with_vertices: bool = False
    with_mask: bool = False
    include_invalid: bool = False
    paper_filter: bool = False
    skip_bad: bool = False
    allow_missing_subjects: bool = False
    crop: str = "joints"
    versions: str | Sequence[str] | None = None
    mano_dir: str | Path | None = None
    cache: str | Path | None = None
    workers: int | None = None

    def refuse(self, name: str, known: Sequence[str], right_only: bool = True) -> None:
        """Check the options for the data set ``name``, of whose special ones it knows ``known``.

        Raises:
            ValueError: naming an option that it does not know, or a side that it does not label.
        """
        if right_only and self.side not in ("right", "both"):
            raise ValueError(f"{name} labels right hands only, but side is {self.side!r}; use right (or both)")
        for option in fields(self):
            if option.name in _SPECIAL and option.name not in known and getattr(self, option.name) != option.default:
                raise ValueError(f"{option.name} means nothing to {name}; leave it out")
