"""What EXIF says of a picture: which way is up, and the focal length of its lens in pixels, if that can be true."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageOps

_MAKE, _ORIENTATION, _EXIF = 0x010F, 0x0112, 0x8769
_FOCAL_LENGTH, _FOCAL_LENGTH_35MM = 0x920A, 0xA405
_WIDTH, _HEIGHT = 0xA002, 0xA003
_PLANE_X_RESOLUTION, _PLANE_UNIT, _ZOOM = 0xA20E, 0xA210, 0xA404
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0}
_FOCAL_RANGE = (0.25, 30.0)  # of the longer side: from a fisheye lens to a telescope
_SENSOR_MM = (2.0, 80.0)  # from a webcam to medium format
_PANORAMA = 2.4  # a picture so many times as long as high is stitched of several, and no lens's
_DIAGONAL_35MM = 43.267  # of the 36 x 24 mm film that 35 mm equivalents refer to


def focal_of_exif(exif: Mapping[int, object], width: int, height: int) -> tuple[float | None, str]:
    """Focal length in pixels by the 35 mm equivalent (of the diagonal), else by length and sensor resolution.

    Programs that resize or crop a picture often leave EXIF as the camera wrote it. The 35 mm equivalent holds as long
    as the picture has the proportions that EXIF says; sensor resolution, only with EXIF's own width to scale it by.
    Apple's equivalents are of the longer side, in its share of a 4:3 film: 389 square pictures of an iPhone 7 (28 mm,
    pixels of 1.22 um) say 38 mm, which is 3.99 mm over 1.2 um so, and over 1.06 um by the diagonal.
    Without a focal length, the text says why EXIF is not believed, or nothing.
    """

    def number(tag: int) -> float:
        try:
            value = float(exif.get(tag, 0))  # type: ignore[arg-type]
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            return 0.0
        return value if 0 < value < 1e6 else 0.0

    equivalent, length, resolution = number(_FOCAL_LENGTH_35MM), number(_FOCAL_LENGTH), number(_PLANE_X_RESOLUTION)
    before = max(number(_WIDTH), number(_HEIGHT)), min(number(_WIDTH), number(_HEIGHT))  # it may have been turned
    longer, shorter, knows = max(width, height), min(width, height), equivalent or length
    scale = longer / before[0] if before[1] else 0.0
    if scale and abs(shorter - scale * before[1]) > max(1.5, 0.01 * shorter):
        return None, f"EXIF not believed: it is of {before[0]:g} x {before[1]:g} px, cropped since" if knows else ""
    if longer > _PANORAMA * shorter:
        return None, f"EXIF not believed: {width} x {height} px are a panorama" if knows else ""
    unit = _MM_PER_UNIT.get(int(number(_PLANE_UNIT) or 2))
    # What both numbers together say of the sensor. A digital zoom makes it smaller than it is, nothing makes it larger;
    # of pictures that were made smaller some programs for iPhones say an equivalent as if they had been cropped.
    diagonal = _DIAGONAL_35MM * length / equivalent if length and equivalent else 0.0
    side = before[0] * unit / resolution if resolution and unit else 0.0
    if equivalent and diagonal and not _SENSOR_MM[0] / max(1.0, number(_ZOOM)) < diagonal < _SENSOR_MM[1]:
        return None, f"EXIF not believed: {length:g} mm like {equivalent:g} mm on film is a sensor of {diagonal:.3g} mm"
    if not equivalent and length and side and not _SENSOR_MM[0] < side < _SENSOR_MM[1]:
        return (
            None,
            f"EXIF not believed: {before[0]:g} px at {resolution / unit:.4g} px/mm is a sensor of {side:.3g} mm",
        )
    if equivalent:
        apple = str(exif.get(_MAKE, "")).strip(" \0").lower() == "apple"
        size = longer * 1.25 if apple else float(np.hypot(width, height))
        zoom = number(_ZOOM)
        zoomed = f", digital zoom of {zoom:.3g} taken to be in it" if zoom > 1.05 else ""  # makers differ
        focal, source = equivalent * size / _DIAGONAL_35MM, f"{equivalent:g} mm (35 mm film{zoomed})"
    elif length and resolution and unit and scale:
        resized = "" if abs(scale - 1) < 0.01 else f", resized by {scale:.3g}"
        focal, source = length * resolution / unit * scale, f"{length:g} mm at {resolution / unit:.4g} px/mm{resized}"
    else:
        return None, ""
    return (focal, f"EXIF, {source}") if _FOCAL_RANGE[0] < focal / longer < _FOCAL_RANGE[1] else (None, "")


def shown_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height, px, of `upright`, without decoding."""
    width, height = picture.size
    return (height, width) if _orientation(picture) > 4 else (width, height)


def _orientation(picture: Image.Image) -> int:
    """1 to 8; 1 also where EXIF says none of them."""
    turn = _integer(picture.getexif().get(_ORIENTATION))
    return turn if turn in range(2, 9) else 1


def upright(picture: Image.Image) -> Image.Image:
    """Turned as EXIF says; an orientation written as a byte or as text counts, one that is none of 1 to 8 does not."""
    turn = _orientation(picture)
    if turn == 1:
        return picture
    # A copy without the rest of EXIF, which Pillow would write again and may stumble over.
    bare = picture.copy()
    bare.info = {key: value for key, value in picture.info.items() if key == "transparency"}
    bare.getexif().clear()
    bare.getexif()[_ORIENTATION] = turn
    return ImageOps.exif_transpose(bare)


def _integer(value: object) -> int:
    """An EXIF value as an integer, whatever type it was written in; 0 if it is none."""
    if isinstance(value, bytes):
        value = value.strip(b"\0 ")
        value = value.decode("ascii", "replace") if value.isdigit() else int.from_bytes(value, "little")
    try:
        return int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return 0


def exif_of(picture: Image.Image) -> dict[int, object]:
    """Its entries by number, those of the photograph too; none of a damaged directory."""
    try:
        exif = picture.getexif()
        return {**dict(exif), **exif.get_ifd(_EXIF)}
    except Exception:  # the picture may be whole
        return {}
