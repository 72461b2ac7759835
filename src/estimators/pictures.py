"""Pictures by the names that estimators' files have for them: with folders or without, of this machine or another."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from utils.artifact_checks import ArtifactError
from utils.cameras.exif import shown_size

#: Endings of pictures that Pillow reads without a plug-in.
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def picture_name(value: Any) -> str:
    """A picture's name as a file has it, of text or bytes; folders, also of Windows, with / between them."""
    return (os.fsdecode(value) if isinstance(value, bytes) else str(value)).replace("\\", "/")


def without_ending(name: str) -> str:
    """A picture's name without folder and ending; a number behind a dot (shot.0001) is none."""
    path = Path(name)
    return path.name if path.suffix[1:].isdigit() else path.stem


def picture_parts(name: str) -> tuple[str, ...]:
    """A picture's name without its ending, then its folders, the innermost first."""
    return (without_ending(name), *_folders(name)[::-1])


def same_picture(parts: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether two `picture_parts` can be of one picture: all that both say agrees."""
    return all(one == other for one, other in zip(parts, others, strict=False))


def _folders(name: str) -> list[str]:
    return [part for part in PurePosixPath(name).parts[:-1] if part not in ("/", "..")]


def find_picture(images: str | os.PathLike, name: str) -> Path | None:
    """The picture of that name, with its suffix or without, with as many of its folders as there are; None: not there.

    Raises:
        ArtifactError: there are several.
    """
    folders = _folders(name)
    for start in range(len(folders) + 1):
        whole = Path(images, *folders[start:], PurePosixPath(name).name)
        if whole.is_file():
            return whole
        files = [file for end in _PICTURES for one in (end, end.upper()) if (file := Path(f"{whole}{one}")).is_file()]
        if len(files) > 1:
            raise ArtifactError(f"{images}: {name} is {' and '.join(file.name for file in files)}; leave one")
        if files:
            return files[0]
    return None


def picture_size(file: Path) -> tuple[int, int]:
    """Width, height px of a picture, as it is shown."""
    with Image.open(file) as picture:
        return shown_size(picture)
