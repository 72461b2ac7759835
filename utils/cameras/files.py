"""Calibrated cameras from the files that people have: JSON, OpenCV's YAML, ROS camera_info, Kalibr's camchain, numbers.

All are one mapping with other names for the same things, so one reader takes them all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from utils.cameras.lens import COUNTS, CameraModel
from utils.files import READ_ERRORS, once_each

SUFFIXES = (".json", ".yaml", ".yml")
_LARGEST_FILE = 1 << 20
#: Names of the distortion models that are ours (OpenCV, ROS and Kalibr in turn).
_LENS = {
    "pinhole": "pinhole", "opencv": "pinhole", "plumb_bob": "pinhole", "rational_polynomial": "pinhole",
    "radtan": "pinhole", "radial-tangential": "pinhole", "none": "pinhole", "": "pinhole",
    "fisheye": "fisheye", "opencv_fisheye": "fisheye", "equidistant": "fisheye", "kannala_brandt": "fisheye",
    "kannalabrandt8": "fisheye",
}  # fmt: skip
_MATRIX = ("K", "k", "camera_matrix", "intrinsics", "cameraMatrix", "mtx")
_NUMBERS = ("fx", "fy", "cx", "cy")
_DISTORTION = (
    "D", "d", "distortion_coefficients", "distortion_coeffs", "distortion", "dist_coeffs", "distCoeffs", "dist",
)  # fmt: skip
_LIKE_DISTORTION = re.compile("dist(?!ance)|coeff|radial|tangential|^kc$", re.IGNORECASE)
_SIZES = ("image_size", "resolution", "size")
_SIDES = (("image_width", "image_height"), ("width", "height"), ("w", "h"))
_LIKE_SIZE = re.compile("^(image|img|picture|frame)_?(size|shape|resolution|width|height|w|h)$", re.IGNORECASE)
_LIKE_FISHEYE = re.compile("fish|equidist|kannala", re.IGNORECASE)
_PRISM = ("s1", "s2", "s3", "s4", "tauX", "tauY", "taux", "tauy")
_COEFFICIENTS = {"pinhole": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"), "fisheye": ("k1", "k2", "k3", "k4")}


class _Loader(yaml.SafeLoader):
    """Safe YAML that also knows OpenCV's matrices, and takes no name twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """The mapping of a node."""
        once_each([(str(key.value), None) for key, _ in node.value])
        return super().construct_mapping(node, deep)


_Loader.add_constructor(
    "tag:yaml.org,2002:opencv-matrix", lambda loader, node: loader.construct_mapping(node, deep=True)
)


def read_camera(text: str, name: str | None = None) -> CameraModel:
    """A camera from a file or from numbers.

    Args:
        text: the path of a file that ends in one of `SUFFIXES`, or ``FX,FY,CX,CY[,K1,K2,P1,P2[,K3[,K4,K5,K6]]]`` in
            pixels, with ``fisheye:`` before them for ``FX,FY,CX,CY,K1,K2,K3,K4``.
        name: which camera of a file with several (Kalibr's cam0, cam1, ...).

    A file's K is ``K``, ``camera_matrix`` or ``intrinsics`` (3x3, 9 numbers, 4 numbers fx, fy, cx, cy, or a mapping
    with ``data``) or ``fx``, ``fy``, ``cx``, ``cy``; its distortion ``D``, ``distortion_coefficients``,
    ``distortion_coeffs``, ``distortion`` or ``k1``, ``k2``, ...; its lens ``distortion_model``, ``model``, ``lens``,
    OpenCV's ``fisheye_model: 1``, or whatever names a fisheye; its size ``width`` and ``height``, ``image_width`` and
    ``image_height``, ``image_size`` or ``resolution``.

    Raises:
        FileNotFoundError: no such file. ValueError: no camera, a lens that is not supported, or see `CameraModel`.
    """
    path = Path(text)
    if path.suffix.lower() not in SUFFIXES:
        if name is not None:
            raise ValueError(f"{text}: is one camera without a name, not {name!r}; leave the name out")
        return _from_numbers(text)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such camera file")
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"it is larger than {_LARGEST_FILE} bytes")
        content = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            values = json.loads(content, object_pairs_hook=once_each)
        else:
            # OpenCV's first line, "%YAML:1.0", is no YAML directive; ROS ends each message with "---".
            content = content.removeprefix("%YAML:1.0").rstrip().removesuffix("---")
            values = yaml.load(content, Loader=_Loader)  # noqa: S506 (a safe loader)
    except (*READ_ERRORS, yaml.YAMLError) as error:
        raise ValueError(f"{path}: is not readable as a camera file ({error})") from error
    values = _one_camera(path, values, name)
    try:
        return _from_mapping(str(path), values)
    except READ_ERRORS as error:
        message = str(error)
        raise ValueError(message if message.startswith(str(path)) else f"{path}: is no camera ({error!r})") from error


def _from_numbers(text: str) -> CameraModel:
    lens, colon, numbers = text.rpartition(":")
    lens = lens.strip() if colon else "pinhole"
    try:
        values = [float(part) for part in numbers.replace(",", " ").split()]
    except ValueError as error:
        raise ValueError(f"{text}: must be numbers, or a file that ends in one of {SUFFIXES}") from error
    if lens not in COUNTS or len(values) - 4 not in COUNTS[lens]:
        raise ValueError(f"{text}: must be FX,FY,CX,CY and k1,k2,p1,p2[,k3[,k4,k5,k6]], or fisheye: and k1,k2,k3,k4")
    return CameraModel(_matrix(values[:4]), np.array(values[4:]), lens, source=text)


def _one_camera(path: Path, values: Any, name: str | None) -> Mapping[str, Any]:
    """The mapping itself, or the one below it of that name (or the only one) with what stands beside it of a lens."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: holds {type(values).__name__}, not a camera's named values")
    below = {key: value for key, value in values.items() if isinstance(value, Mapping) and _first(value, _MATRIX)}
    below |= {key: value for key, value in values.items() if isinstance(value, Mapping) and "fx" in value}
    if name is not None:
        if name not in below:
            raise ValueError(
                f"{path}: has no camera {name!r}; it has {sorted(map(str, below)) or 'one without a name'}"
            )
    elif not below:
        return values
    elif len(below) > 1 or _first(values, _MATRIX) or "fx" in values:
        own = "" if len(below) > 1 else "one at its top and "
        raise ValueError(f"{path}: has cameras {own}{sorted(map(str, below))}; say which one")
    chosen = below[next(iter(below)) if name is None else name]
    return {key: value for key, value in values.items() if _is_of_lens(str(key), value)} | dict(chosen)


def _is_of_lens(key: str, value: Any) -> bool:
    """Distortion, size or a fisheye's name, not another camera."""
    named = key in (*_DISTORTION, *_COEFFICIENTS["pinhole"], *_SIZES, *(side for pair in _SIDES for side in pair))
    alike = any(pattern.search(key) for pattern in (_LIKE_DISTORTION, _LIKE_SIZE))
    return named or alike or _flags_fisheye((key, value)) or _names_fisheye(value)


def _flags_fisheye(entry: tuple[Any, Any]) -> bool:
    """By its key the entry is a flag that is set."""
    key, value = entry
    return bool(_LIKE_FISHEYE.search(str(key))) and value not in (None, False, 0, "", "0", "false", "False", "none")


def _names_fisheye(value: Any) -> bool:
    return isinstance(value, str) and bool(_LIKE_FISHEYE.search(value))


def _from_mapping(source: str, values: Mapping[str, Any]) -> CameraModel:
    below = {key: value for key, value in values.items() if isinstance(value, Mapping) and _flags_fisheye((key, value))}
    for key, lens in below.items():  # the lens by itself
        if twice := sorted(str(name) for name in lens if values.get(name, lens[name]) is not lens[name]):
            raise ValueError(f"{source}: {', '.join(twice)} is both at the top and in {key}; leave the right one")
        values = {**values, **lens}
    projection = str(values.get("camera_model") or "pinhole").strip().lower()  # Kalibr's, or the whole lens
    if projection not in _LENS:
        raise ValueError(f"{source}: camera_model {values['camera_model']!r} is not supported; calibrate as a pinhole")
    named = [values[key] for key in ("distortion_model", "model", "lens", "camera_model") if values.get(key)]
    flagged = not (values.get("distortion_model") or values.get("lens")) and any(map(_flags_fisheye, values.items()))
    hinted = not named and any(map(_names_fisheye, values.values()))  # a topic's name, say, beside a lens means nothing
    fisheye = flagged or hinted or values.get("fisheye_model") in (1, True)
    model = "fisheye" if fisheye else str(next(iter(named), projection)).strip().lower()
    if values.get("xi"):
        raise ValueError(
            f"{source}: xi {values['xi']!r} is of an omnidirectional lens; calibrate as a pinhole or fisheye"
        )
    if model not in _LENS:
        raise ValueError(f"{source}: lens {model!r} is not supported; it must be one of {sorted(filter(None, _LENS))}")
    lens = _LENS[model]
    if lens != "fisheye" == _LENS[projection]:
        raise ValueError(f"{source}: camera_model {projection!r} and {model!r} are two lenses; leave the right one")
    given = {key: _matrix(_flat(values[key])) for key in _MATRIX if values.get(key) is not None}
    if not (missing := [key for key in _NUMBERS if key not in values]):
        given["fx, fy, cx, cy"] = _matrix([values[key] for key in _NUMBERS])
    elif not given:
        raise ValueError(f"{source}: has no {', '.join(missing)}, nor any of {_MATRIX}")
    K = next(iter(given.values()))
    if other := next((key for key, value in given.items() if not np.allclose(value, K, rtol=1e-3, atol=1e-3)), None):
        raise ValueError(f"{source}: {next(iter(given))} and {other} are two cameras; leave the right one")
    stated = [str(key) for key, value in values.items() if value is not None and _LIKE_DISTORTION.search(str(key))]
    if strange := [key for key in stated if key not in (*_DISTORTION, "distortion_model")]:
        raise ValueError(f"{source}: {', '.join(strange)} is not understood; a distortion is {_DISTORTION[2]}")
    if strange := [str(key) for key in values if _LIKE_SIZE.search(str(key)) and key not in (*_SIZES, *_SIDES[0])]:
        raise ValueError(f"{source}: {', '.join(strange)} is not understood; a size is image_width and image_height")
    key = _first(values, _DISTORTION)
    if key and not (isinstance(values[key], Mapping) and "data" not in values[key]):
        distortion = _flat(values[key])
    else:  # by name, here or in a mapping of their own
        values = values if key is None else {**values, **values[key]}
        names = _COEFFICIENTS[lens]
        if unknown := sorted(name for name in _PRISM if values.get(name)):
            raise ValueError(f"{source}: {', '.join(unknown)} of a thin prism or a tilted sensor are not supported")
        if switch := next((name for name in names if isinstance(values.get(name), bool)), None):
            raise ValueError(f"{source}: {switch} is {values[switch]}, which is no number")
        used = max((number for number, name in enumerate(names) if name in values), default=-1) + 1
        count = next(count for count in COUNTS[lens] if count >= used)
        distortion = np.array([float(values.get(name, 0)) for name in names[:count]])
    return CameraModel(K, distortion, lens, _size(values), source)


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if values.get(name) is not None), None)


def _flat(value: Any) -> np.ndarray:
    """Numbers of a list, a list of lists or a mapping with ``data``; YAML leaves "1e-5" a string."""
    found = np.array(value["data"] if isinstance(value, Mapping) else value)
    if found.dtype == bool:
        raise ValueError(f"{value!r} is no number")
    return found.astype(np.float64).ravel()


def _matrix(numbers: Any) -> np.ndarray:
    values = np.array(numbers, np.float64)
    if values.size == 9:
        return values.reshape(3, 3)
    if values.size != 4:
        raise ValueError(f"intrinsics of {values.size} numbers; it must be fx, fy, cx, cy or a 3x3 matrix")
    fx, fy, cx, cy = values
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _size(values: Mapping[str, Any]) -> tuple[int, int] | None:
    given: list[Any] = [values[key] for key in _SIZES if values.get(key) is not None]
    given += [pair for sides in _SIDES if (pair := [values.get(side) for side in sides]) != [None, None]]
    if not given:
        return None
    if isinstance(given[0], str) or None in given[0] or np.size(_flat(given[0])) != 2:
        raise ValueError(f"a picture's size is {given[0]!r}; width and height in pixels are meant")
    width, height = _flat(given[0])
    if width % 1 or height % 1:
        raise ValueError(f"a picture's size is {given[0]!r}; whole numbers of pixels are meant")
    if other := next((one for one in given[1:] if list(_flat(one)) != [width, height]), None):
        raise ValueError(f"pictures have two sizes, {given[0]!r} and {other!r}; leave the right one")
    return int(width), int(height)
