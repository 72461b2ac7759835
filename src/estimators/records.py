"""What the readers share: one entry of a file, one hand of it, and its way into `Predictions`."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from src.estimators.pictures import picture_name
from utils.artifact_checks import ArtifactError
from utils.camera import project_numpy
from utils.cameras.intrinsics import MAX_OFF_CENTRE, checked_intrinsics, doubt_size

_PICTURE = ("img_path", "image_path", "image", "image_name", "img_name", "imgname")
#: The furthest joint of a hand from its wrist, m, by whatever scale an estimator has: a child's fist, the longest hand.
MIN_HAND, MAX_HAND = 0.03, 0.5


class EstimateFormatError(ArtifactError):
    """A file is not of the format that it was given as."""


class MissingKeyError(EstimateFormatError):
    """A key of the format is not there."""


@dataclass
class Options:
    """What a file may not say.

    Attributes:
        side: "right" or "left", of files whose hands name none.
        sides: "subject" or "mirror": how the file names sides; None: as its version does.
        unit: "m" or "mm", of plain 3D joints.
        size: width, height of the pictures, px. size_in: of a picture by its name, where the pictures are there.
    """

    side: str | None = None
    sides: str | None = None
    unit: str = "m"
    size: tuple[int, int] | None = None
    size_in: Callable[[str], tuple[int, int] | None] = lambda name: None

    def size_of(self, entry: Entry) -> tuple[int, int] | None:
        """Width and height of the entry's picture, px."""
        return self.size or self.size_in(image_name(entry))


class Entry:
    """A dict of a file, with the dicts in it: a key is found wherever it lies ("betas", "pred_mano_params.betas"), the
    outermost first; of several as deep, the one that "pred..." holds.

    ``number``: its place among those of a list that are of its picture; of no list: 0.
    """

    def __init__(self, content: dict[str, Any], name: str, where: str, number: int = 0) -> None:
        self.content, self.name, self.where, self.number = content, name, where, number
        self._slots: dict[str, tuple[dict[str, Any], str]] = {}  # key: the dict that holds it, and its name there
        self._doubtful: dict[str, list[str]] = {}  # keys that several dicts hold, and where
        level = [("", content)]
        while level:
            there: dict[str, list[tuple[str, dict[str, Any], str]]] = {}
            for path, one in level:
                for found in one:
                    whole = f"{path}.{found}".replace("/", ".")
                    there.setdefault(whole.rsplit(".", 1)[-1], []).append((whole.strip("."), one, found))
            for key in there.keys() - self._slots.keys() - self._doubtful.keys():
                predicted = [slot for slot in there[key] if slot[0].startswith("pred") or ".pred" in slot[0]]
                slots = there[key] if len(predicted) != 1 else predicted
                self._slots[key] = slots[0][1:]
                if len(slots) > 1:
                    self._doubtful[key] = [path for path, _, _ in slots]
            level = [(f"{path}.{key}", inner) for path, one in level for key, inner in one.items()
                     if isinstance(inner, dict)]  # fmt: skip

    @functools.cached_property
    def pictures(self) -> tuple[str, np.ndarray] | None:
        """The key that names its pictures, and the names, () or (N,); None: there is none."""
        found = ((key, _names(self.get(key))) for key in _PICTURE)
        return next(((key, names) for key, names in found if names is not None), None)

    def holds(self, key: str) -> bool:
        """Whether the key is there, also where it is None."""
        return key in self._slots

    def has(self, key: str) -> bool:
        """Whether the key is there and not None."""
        return self.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        """The plain value.

        Raises:
            EstimateFormatError: several dicts in the entry hold the key.
        """
        if key in self._doubtful:
            raise EstimateFormatError(
                f"{self.where}: {key} is in it several times ({', '.join(self._doubtful[key][:4])}): of several "
                "pictures or hands a list is meant, or a dict by the pictures' names with their suffix"
            )
        holder, name = self._slots.get(key, ({}, key))
        return holder.get(name, default)

    def need(self, *keys: str) -> None:
        """Raise MissingKeyError unless all of them are there; it names those that are not."""
        if missing := [key for key in keys if not self.has(key)]:
            many = len(missing) > 1
            raise MissingKeyError(
                f"{self.where}: the key{'s' * many} {', '.join(map(repr, missing))} {'are' if many else 'is'} missing "
                f"(it has {sorted(map(str, self.content))[:20]})"
            )

    def array(self, key: str, *shape: int) -> np.ndarray:
        """Finite numbers, float64, in ``shape`` (-1: any length; leading ones of the file are dropped).

        Raises:
            MissingKeyError, EstimateFormatError: not there; of another shape; not finite.
        """
        self.need(key)
        try:
            raw = self.get(key)
            raw = raw.detach().double().numpy() if isinstance(raw, torch.Tensor) else np.asarray(raw, dtype=np.float64)
            value = raw.reshape(shape)
        except (ValueError, TypeError, RuntimeError) as error:
            raise EstimateFormatError(f"{self.where}: {key} is not numbers of shape {shape} ({error})") from error
        if not np.isfinite(value).all():
            place = [int(index) for index in np.argwhere(~np.isfinite(value))[0]]
            raise EstimateFormatError(
                f"{self.where}: {key}{place} is not finite; remove this hand or estimate it again"
            )
        return value.copy()

    def put(self, key: str, index: Any, value: np.ndarray, *shape: int) -> list[str]:
        """Set ``value`` at ``index`` of the key seen in ``shape``, in the file's own type; gives the key's name."""
        if not self.has(key):
            return []
        holder, name = self._slots[key]
        old = holder[name]
        if isinstance(old, torch.Tensor):
            if 0 in old.stride():  # expanded: its rows are one
                holder[name] = old = old.detach().clone()
            view = old.detach().view(shape)  # of the same numbers, also where a network's graph still hangs on them
            view[index] = torch.as_tensor(np.asarray(value)).to(old.dtype).reshape(view[index].shape)
        else:
            whole: np.ndarray = np.array(old)
            if whole.dtype.kind != "f":
                whole = whole.astype(np.float64)
            part = whole.reshape(shape)
            part[index] = np.reshape(value, part[index].shape)
            holder[name] = whole if isinstance(old, np.ndarray) else whole.tolist()
        return [key]

    def put_each(self, index: Any, *changes: tuple[str, np.ndarray | None, tuple[int, ...]]) -> list[str]:
        """`put` of every key whose value is not None, each in its shape."""
        return [
            found for key, value, shape in changes if value is not None for found in self.put(key, index, value, *shape)
        ]


def entries(content: Any, name: str, where: str, number: int = 0) -> Iterator[Entry]:
    """Every dict of results: of one, of a list of them, or by the names of the pictures."""
    if isinstance(content, (list, tuple)):
        before: Counter[Any] = Counter()  # of the same picture
        for place, item in enumerate(content):
            picture = _picture_of(item)
            yield from entries(item, name, f"{where}[{place}]", before[picture])
            before[picture] += 1
    elif isinstance(content, dict):
        nested = content and all(isinstance(item, (dict, list)) for item in content.values())
        if nested and all("." in str(key) for key in content):  # picture names
            for key, item in content.items():
                yield from entries(item, picture_name(key), f"{where}[{key!r}]")
        else:
            yield Entry(content, name, where, number)
    else:
        raise EstimateFormatError(f"{where}: a {type(content).__name__} where a dict of results must be")


def _picture_of(item: Any) -> Any:
    """What a dict of results says of its picture, if it names one."""
    named = [_names(item.get(key)) for key in _PICTURE] if isinstance(item, dict) else []
    return next((names.item() for names in named if names is not None and names.size == 1), None)


def _names(value: Any) -> np.ndarray | None:
    """Names or numbers of pictures, () or (N,), in a value of a file; None: it is none, or the pictures' pixels."""
    if isinstance(value, torch.Tensor):
        value = None if value.is_floating_point() else value.numpy()
    found = np.asarray(value)
    if found.ndim == 0 and found.item() in ("", b""):
        return None
    return found if found.dtype.kind in "US" or found.dtype.kind in "iu" and found.ndim < 2 or not found.size else None


def image_name(entry: Entry, index: int | None = None) -> str:
    """The picture's name, with its folders, as the entry has it, or else the file's."""
    if entry.pictures is None:
        return entry.name
    key, names = entry.pictures
    place = 0 if index is None and names.size == 1 or names.ndim == 0 else index
    if place is None or place >= names.size:
        raise EstimateFormatError(
            f"{entry.where}: {key} names {names.size} pictures, which do not belong to its hands one by one"
        )
    return picture_name(names.flat[place])


@dataclass
class Hand:
    """One hand of a file, in the picture as it is (a left hand is not mirrored), its parameters as a right hand's.

    Attributes:
        entry, index: where it is in the file.
        is_left, image; size: width, height px | None.
        K: (3,3) px, the estimator's own camera | None.
        keypoints_2d: (21,2) px; confidence: (21,); joints_3d: (21,3) m, camera axes, any origin | None.
        pose: (16,3,3), betas: (10,) of a right hand | None; hand_name: whose hand model they are of.
        subject: number of the person.
    """

    entry: Entry
    index: Any
    is_left: bool
    image: str
    size: tuple[int, int] | None = None
    K: np.ndarray | None = None
    keypoints_2d: np.ndarray | None = None
    confidence: np.ndarray | None = None
    joints_3d: np.ndarray | None = None
    pose: np.ndarray | None = None
    betas: np.ndarray | None = None
    hand_name: str = ""
    subject: int = 0

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.image} ({'left' if self.is_left else 'right'} hand)"

    def seen_anew(self, new: Hand) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Points (21,3) m after a change, where (3,) m the file's camera sees them at its 2D points, and their
        projection (21,2) px from there; None where nothing changed."""
        if new.joints_3d is None and new.keypoints_2d is None:
            return None
        points = self.joints_3d if new.joints_3d is None else new.joints_3d
        pixels = self.keypoints_2d if new.keypoints_2d is None else new.keypoints_2d
        assert points is not None and pixels is not None and self.K is not None
        put = place(points, pixels, self.K)
        return points, put, project_numpy(points + put, self.K)


def pinhole(focal: float, cx: float, cy: float) -> np.ndarray:
    """K (3,3) px."""
    return np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]])


def camera_of(points: np.ndarray, pixels: np.ndarray, where: str, focal: float | None = None) -> np.ndarray:
    """K (3,3) by which camera points (N,3) m are seen at pixels (N,2): one focal length, least squares.

    Raises:
        EstimateFormatError: no such camera explains them within half a pixel.
    """
    slopes = points[:, :2] / points[:, 2:]
    if focal is None:
        spread, seen = slopes - slopes.mean(axis=0), pixels - pixels.mean(axis=0)
        focal = float((spread * seen).sum() / (spread**2).sum())
    centre = (pixels - focal * slopes).mean(axis=0)
    worst = float(np.abs(focal * slopes + centre - pixels).max())
    if not worst < 0.5:
        raise EstimateFormatError(
            f"{where}: its 2D keypoints are not the projection of its 3D joints ({worst:.1f} px apart); "
            "the file is of another version, or its sides or pictures are mixed up"
        )
    return pinhole(focal, *centre)


def place(points: np.ndarray, pixels: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Translation (3,) m with which points (N,3) m are best seen at pixels (N,2), linear least squares."""
    rays = (pixels - K[:2, 2]) / K[[0, 1], [0, 1]]
    system = np.zeros((len(points), 2, 3))
    system[:, 0, 0] = system[:, 1, 1] = 1
    system[:, :, 2] = -rays
    right = rays * points[:, 2:] - points[:, :2]
    return np.linalg.lstsq(system.reshape(-1, 3), right.reshape(-1), rcond=None)[0]


def check_box(low: np.ndarray, high: np.ndarray, size: tuple[int, int], where: str) -> None:
    """Raise unless the middle of a box (px) lies in the picture of ``size`` width, height."""
    middle = (np.asarray(low) + np.asarray(high)) / 2
    if not ((middle >= -0.5) & (middle <= np.asarray(size) - 0.5)).all():
        raise EstimateFormatError(
            f"{where}: the middle of its box ({middle[0]:.0f}, {middle[1]:.0f}) is outside the picture of "
            f"{size[0]} x {size[1]} px; the picture has another size than the one that was estimated on"
        )


def is_seen(hand: Hand, size: tuple[int, int]) -> bool:
    """Whether the middle of its points (px), the median of those with confidence, lies in the picture of ``size``."""
    if hand.keypoints_2d is None:
        return True
    known = np.ones(len(hand.keypoints_2d), bool) if hand.confidence is None else hand.confidence > 0
    middle = np.median(hand.keypoints_2d[known if known.any() else ~known], axis=0)
    return bool(((middle >= -0.5) & (middle <= np.asarray(size) - 0.5)).all())


def check_hand(hand: Hand, where: str) -> None:
    """Raise unless the picture has a size, its camera, where the file says one, can be one and that picture's, and the
    3D joints are as far apart as a hand's."""
    source, where = where, f"{where}: {hand.name}"
    if hand.size is not None and min(hand.size) < 1:
        raise EstimateFormatError(f"{where}: a picture of {hand.size[0]} x {hand.size[1]} px; width, height are meant")
    if hand.K is not None:
        checked_intrinsics(hand.K, where)
        if hand.size is not None:
            check_centre(hand.K, hand.size, source, hand.name)
    if hand.joints_3d is not None:
        longest = float(np.linalg.norm(hand.joints_3d - hand.joints_3d[0], axis=1).max())
        if not MIN_HAND < longest < MAX_HAND:
            raise EstimateFormatError(
                f"{where}: its furthest joint is {longest:.3g} m from the wrist; 3D joints of a hand in metres are "
                "meant (of plain joints give unit='mm' if that is it)"
            )


def check_centre(K: np.ndarray, size: tuple[int, int], source: str, name: str) -> None:
    """Raise unless K (3,3) px can belong to the picture ``name`` of ``size`` width, height: its centre lies about the
    middle; warn of one of another size."""
    off = np.abs(K[:2, 2] - (np.asarray(size) - 1) / 2) / size
    if not (off <= MAX_OFF_CENTRE).all():
        raise EstimateFormatError(
            f"{source}: {name}: a K with the centre ({K[0, 2]:.4g}, {K[1, 2]:.4g}) cannot belong to a picture of "
            f"{size[0]} x {size[1]} px; give K and the size (width, height) of the pictures as they are"
        )
    doubt_size(f"{source}: K", *(2 * K[:2, 2] + 1).round(3).tolist(), *size)


def flip_x(array: np.ndarray) -> np.ndarray:
    """Points (...,2 or 3) with x negated."""
    flipped = array.copy()
    flipped[..., 0] *= -1
    return flipped


def root_and_fingers(pose: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Rotations (16,...) as most files have them: (1,...) and (15,...); None of None."""
    return (None, None) if pose is None else (pose[:1], pose[1:])


def mirror_rotations(pose: np.ndarray) -> np.ndarray:
    """Rotations (...,3,3) seen in the mirror x -> -x."""
    signs = np.array([-1.0, 1.0, 1.0])
    return pose * signs[:, None] * signs
