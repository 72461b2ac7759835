"""Every hand of a video followed, left and right: found, read where it should be, checked, lost and found again."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from src.models.mesh_joints import is_mesh_model
from src.photos.api import PhotoEstimator
from src.photos.boxes import Region
from src.photos.camera import Camera
from src.photos.image import Photo, UnusableImage
from src.photos.result import Result
from src.photos.shape_filter import ShapeFilter
from src.photos.video.association import (
    crowds,
    is_near,
    lies_on,
    match,
    name_sides,
    part,
    returning,
    tells_side,
    vote,
    yields,
)
from src.photos.video.people import People
from src.photos.video.sights import MOST_OF_A_LOOK, Sight, is_same_hand, open_looker
from src.photos.video.track import BoxMotion, Track, TrackedHand, has_kept_size
from utils.camera import square_box

logger = logging.getLogger(__name__)

#: Mean confidence of the keypoints, where nobody checked before, below which a hand counts as lost.
LEAST_CONFIDENCE = 0.2
#: Root mean square distance of fit and keypoints, over the box's side, from which both are doubted.
DOUBT = 0.08
#: Searches in a row that find a hand beside where its window reads it, from which the search is believed.
MOST_CONTRADICTIONS = 2
#: How much better a search's window must fit the hand, by `Looker.rate`, to take the place of the one that follows it.
FITS_BETTER = 0.15
#: Searches in a row that neither find what a window shows nor take it for a hand, from which it is none.
MOST_DENIALS = 2


class HandTracker:
    """All hands of a video. Call it with each frame in turn.

    Args:
        tools: of `open_tools`; path: of the video (its name may have a K file beside it); size: width, height, px.
        sharing: of shapes, see `People`; shape: of the person so far, None: nothing is known but an identity.

    Attributes:
        camera: of all frames. tracks: hands followed now. people: their shapes.

    Raises:
        UnusableImage: K belongs to pictures of another size.
    """

    def __init__(
        self,
        tools: PhotoEstimator,
        path: Path,
        size: tuple[int, int],
        sharing: bool | None = None,
        shape: ShapeFilter | None = None,
    ) -> None:
        self.tools, self.path = tools, path
        blank = self.photo(np.zeros((size[1], size[0], 3), np.uint8))
        self.camera: Camera = tools.camera(blank)
        self.looker = open_looker(tools, blank)
        self.people = People(tools.shape() if shape is None else shape, sharing)
        self.tracks: list[Track] = []
        self._gone: list[Track] = []
        self._count, self._frame, self._found_at = 0, -1, -(10**9)
        self.reason = "no hand was found yet"
        self._own_keypoints = is_mesh_model(tools.estimator.card.model) and tools.detector is None

    def photo(self, frame: np.ndarray) -> Photo:
        """The next frame (H,W,3) uint8 RGB."""
        return Photo(self.path.stem, self.path, frame)

    def __call__(self, photo: Photo, seconds: float) -> list[TrackedHand]:
        """The hands of the next frame, seen or expected, by the age of their tracks; ``seconds``: its time."""
        self._frame += 1
        for track in self.tracks:
            track.is_found_anew = False
        sights = self._read(photo, seconds)
        if self._is_due(sights):
            self._find(photo, seconds, sights)
        if self.tools.hand not in ("left", "right"):
            name_sides(self.tracks)
            vote(self.tracks, sights)
        before = {track.number: copy.deepcopy(track.motion) for track in self.tracks}
        hands = [self._estimate(photo, track, sights.get(track.number), seconds) for track in self.tracks]
        hands = self._without_parts(hands, before, seconds)
        self.people.watch([track for track in self.tracks if track.is_confirmed and not track.misses])
        for track in [one for one in self.tracks if one.is_over(seconds)]:
            self._end(track)
        return hands

    def _read(self, photo: Photo, seconds: float) -> dict[int, Sight]:
        """Each followed hand in the window where it should be; none is read twice."""
        if self.looker.every == 1:  # the whole picture is looked at anyway
            return {}
        sights = {}
        for track in self.tracks:
            box = track.motion.at(seconds)
            if not self.looker.can_read and track.result is not None:  # nobody reads windows: the fit has the last word
                joints = self.camera.project(track.result.joints.astype(np.float64))
                seen = joints[np.isfinite(joints).all(axis=1)]  # no lens sees all around
                box = square_box(seen, 1.0) if len(seen) else box
            sight = self.read(photo, track, box)
            if sight is None or not is_near(sight.region.box, box) or not has_kept_size(track, sight):
                continue
            sights[track.number] = sight
        part(self.tracks, sights, seconds)
        return sights

    def read(
        self, photo: Photo, track: Track, box: np.ndarray, others: Sequence[tuple[np.ndarray, bool]] | None = None
    ) -> Sight | None:
        """The track's hand in a window about ``box`` (3,) px; changes nothing.

        What looks like the other side is the other hand, unless that one is elsewhere.

        Args:
            others: boxes (3,) of hands that are seen, and whether they are left ones; None: where they were seen last.
        """
        sight = self.looker.read(photo, box, track.is_left)
        if sight is None or not sight.is_others:
            return sight
        if others is None:
            there = [one for one in self.tracks if one is not track and one.is_confirmed and not one.misses]
            others = [(one.motion.box, one.is_left) for one in there]
        return None if tells_side(sight.region.box, not track.is_left, others) else sight

    def _is_due(self, sights: dict[int, Sight]) -> bool:
        """Whether the whole picture is to be searched now."""
        since, looker = self._frame - self._found_at, self.looker
        missing = len(sights) < len(self.tracks)
        if looker.every is None:
            return (missing or not self.tracks) and since >= looker.again
        if not self.tracks or missing or any(track.is_doubtful or not track.is_confirmed for track in self.tracks):
            newly = any(track.number not in sights and not track.misses for track in self.tracks)
            return newly or since >= looker.again
        return since >= looker.every

    def _find(self, photo: Photo, seconds: float, sights: dict[int, Sight]) -> None:
        """Search the picture: find lost hands, correct windows that slid off, begin tracks."""
        self._found_at = self._frame
        try:
            found = self.looker.find(photo)
        except UnusableImage as error:
            self.reason = str(error)
            return
        self.reason = "no further hand was found"
        left = [sight for sight in found if sight.is_sure]
        if self.looker.every is None and self.tracks:  # where the hand is was said: it is that one
            for track in [one for one in self.tracks if one.number not in sights][:1]:
                sights[track.number] = found[0]
            return
        matched = match(self.tracks, found, seconds)
        for track, sight in matched:
            read = sights.get(track.number)
            if read is None and any(lies_on(sight, one) for one in sights.values()):
                continue  # it is followed, whatever side it looks like
            left = [one for one in left if one is not sight]
            if sight.is_sure:
                track.finds += 1
            elif read is not None or not track.is_confirmed or not has_kept_size(track, sight):
                continue
            is_same = read is not None and is_same_hand(read, sight)
            track.contradictions = 0 if is_same else track.contradictions + 1
            if is_same and self.looker.rate(photo, sight) <= self.looker.rate(photo, read) + FITS_BETTER:
                continue
            if is_same or read is None or track.is_doubtful or self._is_better(photo, track, sight, read):
                sights[track.number], track.contradictions, track.is_found_anew = sight, 0, True
                if read is not None:  # what is put right did not move
                    track.motion = BoxMotion(sight.region.box, seconds)
        self._doubt(photo, sights, {track.number for track, sight in matched if sight.is_sure})
        taken = list(sights.values())
        for sight in left:
            if not self._resize(photo, sight, seconds, sights):
                if any(is_same_hand(sight, other) for other in taken):
                    continue
                self._begin(sight, seconds, sights)
            taken.append(sight)
        if self.looker.can_read:
            self._read_as_voted(photo, sights)

    def _read_as_voted(self, photo: Photo, sights: dict[int, Sight]) -> None:
        """What a search took for the other side is read as the side that the votes say; its vote stays."""
        for track in self.tracks:
            sight = sights.get(track.number)
            if sight is not None and track.is_found_anew and sight.left * track.left < 0:
                fresh = self.read(photo, track, sight.region.box)
                if fresh is not None:
                    sights[track.number] = replace(fresh, left=sight.left)

    def _doubt(self, photo: Photo, sights: dict[int, Sight], found: set[int]) -> None:
        """What no search ``found`` must look like a hand at one of several in a row: dark hands do not at each."""
        for track in [one for one in self.tracks if one.number in sights]:
            is_hand = track.number in found or self.looker.is_hand(photo, sights[track.number])
            track.denials = 0 if is_hand else track.denials + 1
            if track.denials >= MOST_DENIALS:
                del sights[track.number]
                self._end(track)

    def _is_better(self, photo: Photo, track: Track, found: Sight, read: Sight) -> bool:
        """A window about what was ``found`` shows the track's hand better than where it was ``read``."""
        fresh = self.read(photo, track, found.region.box)
        if fresh is None or fresh.left * track.left < 0:  # nothing, or the other hand
            return False
        return (fresh.region.score or 0) >= (read.region.score or 0) or track.contradictions >= MOST_CONTRADICTIONS

    def _resize(self, photo: Photo, sight: Sight, seconds: float, sights: dict[int, Sight]) -> bool:
        """A hand of another size where one is followed is that one, if it fits better: its window had shrunk."""
        seen = [(one, sights[one.number]) for one in self.tracks if one.number in sights]
        there = [one for one, read in seen if is_same_hand(sight, read) or lies_on(sight, read)]
        if len(there) != 1 or there[0].left * sight.left < 0:
            return False
        track = there[0]
        if self.looker.rate(photo, sight) <= self.looker.rate(photo, sights[track.number]) + FITS_BETTER:
            return False
        sights[track.number], track.motion = sight, BoxMotion(sight.region.box, seconds)
        track.contradictions, track.denials, track.is_found_anew = 0, 0, True
        return True

    def divide(self, track: Track, known: Result, seconds: float) -> list[TrackedHand]:
        """What a track shows now is another hand than ``known``, which was seen at ``seconds`` and is missing since.

        Returns:
            both as of now.
        """
        self._count += 1
        new = {"hits": 1, "finds": 1, "clear_side": None, "is_confirmed": False}
        other = replace(track, number=self._count, left=track.sight.left, **new)
        self.tracks.append(other)
        box = square_box(known.keypoints, 1.0)
        track.not_at, now = other.motion.box, other.motion.seconds
        track.clear_side = None if track.clear_side is None else float(box[2])
        track.motion, track.layout = BoxMotion(box, seconds), (known.keypoints - box[:2]) / box[2]
        track.miss(f"hand {track.number} is not seen ({self.reason})")
        return [self._tracked(track, now), self._tracked(other, now)]

    def _begin(self, sight: Sight, seconds: float, sights: dict[int, Sight]) -> None:
        """A hand that no track explains: one that comes back, or a new one."""
        missing = [one for one in self.tracks if one.is_confirmed and one.number not in sights]
        seen = [one for one in self.tracks if one.number in sights]
        is_followed = any(lies_on(sight, sights[one.number]) for one in seen)
        track = None if is_followed else returning([*self._gone, *missing], seen, sight, seconds)
        if track is not None:
            self._gone, self.tracks = ([one for one in them if one is not track] for them in (self._gone, self.tracks))
            track.motion, track.layout = BoxMotion(sight.region.box, seconds), None
            track.is_found_anew = True
        elif is_followed or any(crowds(sight, sights[one.number]) for one in seen):
            return
        else:
            self._count += 1
            track = Track.born(self._count, sight, seconds)
            # Nothing else tells a video's first hand from a mistake, nor those of a looker that gives no score.
            track.is_confirmed = sight.region.score is None or self._frame == 0
        self.tracks.append(track)
        sights[track.number] = sight

    def _estimate(self, photo: Photo, track: Track, sight: Sight | None, seconds: float) -> TrackedHand:
        """The hand itself."""
        if sight is None:
            track.miss(f"hand {track.number} is not seen ({self.reason})")
            return self._tracked(track, seconds)
        if self.tools.hand in ("left", "right"):
            sight = replace(sight, left=MOST_OF_A_LOOK if self.tools.hand == "left" else -MOST_OF_A_LOOK)
        before = track.result if track.result is not None and (track.result.side == "left") == track.is_left else None
        where = copy.deepcopy(track.motion)
        track.see(sight, seconds)
        shape = copy.copy(self.people.shape(track))
        if self.looker.can_read:
            sight = replace(sight, region=replace(sight.region, box=track.motion.box))
        try:
            hand = self.look(photo, track, sight, before, shape)
        except Exception as error:
            track.miss(str(error))
            track.motion = where  # what is no hand has not moved
            track.is_doubtful = True
            failed = None if isinstance(error, UnusableImage) else error
            if failed is not None:
                logger.debug("%s, frame %d", self.path, self._frame, exc_info=True)
            return replace(self._tracked(track, seconds), failed=failed)
        if track.is_confirmed:
            shape.saw(hand, track.number, seconds)
        self.people.learned(track, shape)  # a frame without a hand says nothing of its shape
        track.result = hand
        track.is_doubtful = hand.reprojection_px > DOUBT * sight.region.box[2]
        hand.notes["warm_start"] = before is not None
        return self._tracked(track, seconds)

    def _without_parts(
        self, hands: list[TrackedHand], before: dict[int, BoxMotion], seconds: float
    ) -> list[TrackedHand]:
        """What lies on another hand and seems to be behind it could not be seen: it is a part of that hand."""
        kept = []
        for track, hand in zip(self.tracks, hands, strict=True):
            others = [one for one in hands if one is not hand and one.is_confirmed]
            if any(yields(hand, other) for other in others):
                track.miss(f"hand {track.number} is not seen (what was read is a part of another one)")
                track.motion = before[track.number]
                hand = self._tracked(track, seconds)
            kept.append(hand)
        return kept

    def look(
        self, photo: Photo, track: Track, sight: Sight, before: Result | None, shape: ShapeFilter | None = None
    ) -> Result:
        """The track's hand where a frame shows it; changes nothing of the track.

        Args:
            before: the hand in a frame beside it; shape: of the person, None: as known so far.

        Raises:
            UnusableImage: there is none.
        """
        shape = copy.copy(self.people.shape(track)) if shape is None else shape
        hand = self.tools.estimate(photo, self.camera, self._region(track, sight), shape, before)
        if hand.confidence.mean() < LEAST_CONFIDENCE:
            raise UnusableImage(f"the hand was lost (mean confidence {hand.confidence.mean():.2f})")
        return hand

    def _region(self, track: Track, sight: Sight) -> Region:
        """What the estimator is told: the side is the track's."""
        region = replace(sight.region, keypoints=None) if self._own_keypoints else sight.region
        if region.keypoints is not None and region.is_left != track.is_left:  # a pose of the other mirror image
            region = replace(region, keypoints=replace(region.keypoints, pose=None))
        if self.tools.hand in ("left", "right") or track.hits < 2:
            return region if track.is_left == region.is_left else replace(region, is_left=track.is_left)
        keypoints = region.keypoints
        if keypoints is not None and keypoints.side_score is not None:  # one frame's word, which the votes outweigh
            keypoints = replace(keypoints, side_score=max(track.side_probability, 0.5))
        source = f"{track.hits} frames, {track.side_probability:.2f}"
        return replace(region, keypoints=keypoints, is_left=track.is_left, side_source=source)

    def _tracked(self, track: Track, seconds: float) -> TrackedHand:
        person, box = self.people.number(track), track.motion.at(seconds)
        reason = "" if track.result is not None else track.reason
        return TrackedHand(track.number, box, track.is_left, track.is_confirmed, person, track.result, reason)

    def _end(self, track: Track) -> None:
        self.tracks = [one for one in self.tracks if one is not track]
        if track.is_confirmed:
            self._gone.append(track)
