"""mmpose: JSON lists of instances with 2D keypoints: 21 of a hand, or COCO-WholeBody's 133 with both hands in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from src.estimators.records import EstimateFormatError, Hand, MissingKeyError, Options, entries, image_name

SIGNS = ("keypoints", "keypoint_scores", "bbox_score")
#: First of the 21 points of a hand among the 133: of the left and of the right one.
LEFT, RIGHT = 91, 112
#: A hand of a whole body whose mean score is lower is not seen.
MIN_SCORE = 0.1


def read(content: Any, name: str, where: str, options: Options) -> list[Hand]:
    hands = []
    for entry in (one for frame, inner in _frames(content, name) for one in entries(_instances(inner), frame, where)):
        entry.need("keypoints", "keypoint_scores")
        points = entry.array("keypoints", -1, 2)
        scores = np.clip(entry.array("keypoint_scores", -1), 0, 1)
        if len(points) != len(scores) or len(points) not in (21, 133):
            raise EstimateFormatError(
                f"{entry.where}: {len(points)} keypoints, {len(scores)} scores; 21 or 133 are read"
            )
        if len(points) == 21:
            own = str(entry.get("side") or "").lower()
            if own and options.side not in (None, own):
                raise EstimateFormatError(
                    f"{entry.where}: its side is {own!r}; side={options.side!r} (--side_of) is of hands that name none"
                )
            side = own or options.side
            if side not in ("left", "right"):
                raise MissingKeyError(
                    f"{entry.where}: 21 keypoints name no side; give side='right' or side='left' (--side_of)"
                )
            found = [(side == "left", 0)]
        elif options.side is not None:
            raise EstimateFormatError(
                f"{entry.where}: of 133 keypoints it is known which hand is which; leave out side= (--side_of)"
            )
        else:
            found = [(True, LEFT), (False, RIGHT)]
        for left, first in found:
            part = slice(first, first + 21)
            if len(points) == 133 and scores[part].mean() < MIN_SCORE:
                continue
            hand = Hand(entry, part, left, image_name(entry), options.size, None, points[part], scores[part])
            hand.subject = entry.number
            hands.append(hand)
    return hands


def _frames(content: Any, name: str) -> list[tuple[str, Any]]:
    """Names and contents of the frames of a video's file, else of the one picture."""
    inner = content.get("instance_info") if isinstance(content, dict) else content
    if isinstance(inner, list) and inner and all(isinstance(item, dict) and "frame_id" in item for item in inner):
        return [(f"{name}_{int(item['frame_id']):06d}", item) for item in inner]
    return [(name, content)]


def _instances(content: Any) -> Any:
    """The list of instances: mmpose's demo wraps it in "instance_info" and "instances"."""
    if isinstance(content, dict):
        for key in ("instance_info", "instances", "predictions"):
            if key in content:
                return _instances(content[key])
    if isinstance(content, list) and content and all(isinstance(item, (list, dict)) for item in content):
        return [_instances(item) for item in content]
    return content


def update(hand: Hand, new: Hand) -> list[str]:
    """Put the keypoints of ``new`` into the file."""
    return hand.entry.put_each(hand.index, ("keypoints", new.keypoints_2d, (-1, 2)))
