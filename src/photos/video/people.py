"""Whose hands are in a video: shapes that the tracks of one person share."""

from __future__ import annotations

from src.photos.shape_filter import ShapeFilter
from src.photos.video.track import Track

#: Frames with two hands of one side from which there are several people: sides are voted on, and err at first.
ENOUGH = 5


class People:
    """One person's hands share their shape, as long as no two hands of one side are seen at once.

    Then nobody knows who is who: from there on each hand has a shape of its own, begun with what was shared.

    Args:
        new: an empty (or the identity's) shape.
        sharing: None: as said; True: all hands are one person's, whatever is seen; False: each has its own.
    """

    def __init__(self, new: ShapeFilter, sharing: bool | None = None) -> None:
        self._sharing, self._shapes, self._doubts = sharing, {0: new}, 0
        self.are_several = sharing is False

    def watch(self, tracks: list[Track]) -> None:
        """Look at the confirmed tracks that are seen in a frame."""
        left = sum(track.is_left for track in tracks)
        if self._sharing is None and max(left, len(tracks) - left) > 1:
            self._doubts += 1
            self.are_several = self.are_several or self._doubts > ENOUGH

    def shape(self, track: Track) -> ShapeFilter:
        """Of a hand."""
        return self._shapes.get(track.number, self._shapes[0])

    def number(self, track: Track) -> int:
        """Whose a hand is: 0 of the one person's, else the track's number."""
        return track.number if self.are_several or self.shape(track).is_anothers else 0

    def learned(self, track: Track, shape: ShapeFilter) -> None:
        """What a hand's frame added."""
        self._shapes[track.number if self.are_several or shape.is_anothers else 0] = shape
