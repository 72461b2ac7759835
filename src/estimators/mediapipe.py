"""MediaPipe: the legacy solution's and the Tasks API's results as dicts or text format, and our own `Detection`s.

The legacy solution names the side as in a mirror, the Tasks API the subject's own. x times width is a coordinate
whose integers are pixel centres (src/photos/detector/mediapipe_hands.py). World points are those of a camera that
looks at the hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from src.estimators.records import Entry, EstimateFormatError, Hand, MissingKeyError, Options, entries, image_name

SIGNS = ("hand_landmarks", "multi_hand_landmarks", "world_landmarks", "handedness", "multi_handedness",
         "keypoint_confidence")  # fmt: skip
_LANDMARKS = ("multi_hand_landmarks", "hand_landmarks", "handLandmarks", "landmarks")
_WORLD = ("multi_hand_world_landmarks", "hand_world_landmarks", "handWorldLandmarks", "worldLandmarks",
          "world_landmarks")  # fmt: skip
_SIDES = ("multi_handedness", "handedness", "handednesses", "classifications")


def read(content: Any, name: str, where: str, options: Options) -> list[Hand]:
    """Every hand; the picture's size is the file's ``image_size`` or the user's."""
    hands = []
    for entry in entries(content, name, where):
        if entry.has("keypoints_2d") and entry.has("is_left"):
            hands.append(_own(entry, options))
            continue
        landmarks, world, sides = (
            next((key for key in keys if entry.has(key)), None) for keys in (_LANDMARKS, _WORLD, _SIDES)
        )
        if landmarks is None and any(entry.holds(key) for key in _LANDMARKS):
            continue  # a frame without a hand
        if landmarks is None or sides is None:
            missing = "hand_landmarks" if landmarks is None else "handedness"
            raise MissingKeyError(f"{entry.where}: the key {missing!r} is missing (it has {sorted(entry.content)})")
        mirrored = (options.sides or ("mirror" if landmarks == _LANDMARKS[0] else "subject")) == "mirror"
        size = (
            tuple(entry.array("image_size", 2).round().astype(int).tolist())
            if entry.has("image_size")
            else options.size_of(entry)
        )
        if size is None and entry.get(landmarks):
            raise EstimateFormatError(
                f"{entry.where}: landmarks are parts of the picture; give image_size=(width, height) or images=FOLDER "
                "(--image_size, --images)"
            )
        for key in (sides, world):
            if key is not None and len(entry.get(key)) < len(entry.get(landmarks)):
                raise EstimateFormatError(
                    f"{entry.where}: {len(entry.get(landmarks))} hands in {landmarks}, {len(entry.get(key))} in {key}"
                )
        for number, points in enumerate(entry.get(landmarks)):
            label = _label(entry.get(sides)[number], entry.where)
            parts = _points(points, entry.where)[:, :2]
            if not (np.abs(np.median(parts, axis=0) - 0.5) < 1.5).all():
                raise EstimateFormatError(
                    f"{entry.where}: hand {number}'s landmarks lie about {np.median(parts, axis=0).round(2).tolist()}: "
                    "parts of the picture's width and height are meant, not pixels"
                )
            pixels = parts * size
            hand = Hand(
                entry, (landmarks, world, number), (label == "left") != mirrored, image_name(entry), size, None, pixels
            )
            hand.joints_3d = None if world is None else _points(entry.get(world)[number], entry.where)
            hands.append(hand)
    return hands


def _own(entry: Entry, options: Options) -> Hand:
    entry.need("keypoint_confidence")  # that plain joints, which have the other keys, lack
    if options.sides is not None:
        raise EstimateFormatError(f"{entry.where}: our own detections say is_left; leave out sides= (--sides)")
    hand = Hand(entry, None, bool(entry.get("is_left")), image_name(entry), options.size)
    hand.keypoints_2d, hand.confidence = entry.array("keypoints_2d", 21, 2), entry.array("keypoint_confidence", 21)
    hand.joints_3d = entry.array("world", 21, 3) if entry.has("world") else None
    return hand


def _list(points: Any) -> Any:
    return points.get("landmark", points.get("landmarks")) if isinstance(points, dict) else points


def _points(points: Any, where: str) -> np.ndarray:
    """(21,3) of a list of landmarks."""
    items = [item if isinstance(item, dict) else {} for item in _list(points) or []]
    rows = [[np.ravel(item.get(axis, np.nan))[0] for axis in "xyz"] for item in items]
    value = np.array(rows, dtype=np.float64)
    if value.shape != (21, 3) or not np.isfinite(value).all():
        raise EstimateFormatError(f"{where}: a hand's landmarks are not 21 points with finite x, y, z")
    return value


def _label(side: Any, where: str) -> str:
    """ "left" or "right" of a category, in whichever wrapping."""
    while isinstance(side, (list, tuple)) and side or isinstance(side, dict) and "classification" in side:
        side = side["classification"] if isinstance(side, dict) else side[0]
    name = next((side[key] for key in ("category_name", "categoryName", "label") if key in side), "")
    name = str(name[0] if isinstance(name, list) else name).lower()
    if name not in ("left", "right"):
        raise EstimateFormatError(f"{where}: the side of a hand is {name!r}; it must be Left or Right")
    return name


def update(hand: Hand, new: Hand) -> list[str]:
    """Put the points of ``new`` into the file; z of the picture's landmarks stays."""
    entry, changed = hand.entry, []
    if hand.index is None:
        points = ("keypoints_2d", new.keypoints_2d, (21, 2)), ("world", new.joints_3d, (21, 3))
        return entry.put_each(slice(None), *points)
    landmarks, world, number = hand.index
    for key, values, axes in ((landmarks, new.keypoints_2d, "xy"), (world, new.joints_3d, "xyz")):
        if key is not None and values is not None:
            values = values / hand.size if key == landmarks else values
            for item, value in zip(_list(entry.get(key)[number]), values, strict=True):
                item.update({axis: float(number) for axis, number in zip(axes, value, strict=False)})
            changed += [key, f"{key}.z as it was"] if key == landmarks else [key]
    return changed
