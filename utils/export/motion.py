"""Hands' motion gathered from a video's frames, and written as animated GLB or BVH however the video ends."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.export.bvh import write_bvh
from utils.export.gltf_animation import MovingHand, write_hands_glb
from utils.export.rig import SkinnedHand

logger = logging.getLogger(__name__)

#: No pause between two frames is held longer than this in a BVH, whose frames come at one rate: a clock jumped, s.
_LONGEST_GAP = 10.0


class PosedHand(NamedTuple):
    """A hand in one frame: pose (16,3,3), betas (10,), wrist (3,) m, OpenCV camera frame, of ``assets``.

    track: which hand of the video it is; of one track only the side that most frames show is written.
    """

    assets: SkinnedHand
    pose: np.ndarray
    betas: np.ndarray
    wrist: np.ndarray
    track: int = 1


class HandMotion:
    """Hands through a video.

    Frames without a hand hold its pose before them; those before its first frame have that one's pose. A hand is of the
    side that most of its frames show; frames of the other side hold the pose as well. It has one shape, its last
    frame's, which rests on the most frames; every wrist stays where its frame puts it.

    Attributes:
        files: that `motion_files` wrote.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._frames: list[dict[int, PosedHand]] = []
        self.files: list[Path] = []

    def add(self, seconds: float, *hands: PosedHand) -> None:
        """Take in the next frame, shown at ``seconds``, with its hands, each of another track."""
        self._seconds.append(seconds)
        self._frames.append({hand.track: hand for hand in hands})

    def hands(self) -> list[tuple[list[PosedHand], int]]:
        """Of each track, by its number: its hand at every frame, and in how many frames it is held."""
        found = []
        for track in sorted({number for frame in self._frames for number in frame}):
            mine = [frame.get(track) for frame in self._frames]
            (side, count), *others = Counter(hand.assets.side for hand in mine if hand is not None).most_common()
            if others:
                words = "%d frames show hand %d as the other hand; the animation is of the %s one, held there"
                logger.warning(words, others[0][1], track, side)
            shown = [hand if hand is not None and hand.assets.side == side else None for hand in mine]
            last = next(hand for hand in shown if hand is not None)
            held = [last := hand or last for hand in shown]
            found.append((held, len(mine) - count))
        return found

    def write(
        self,
        fps: float,
        glb: Path | None = None,
        bvh: Path | None = None,
        *,
        joint_names: str = "mano",
        correctives: bool = False,
    ) -> list[Path]:
        """Write the files that are asked for, each atomically; without a hand there is none, and a warning.

        A GLB holds all hands. A BVH holds one: the first has the name asked for, further ones ``NAME_2.bvh`` and so on.

        Args:
            fps: frames a second of the BVH; the GLB keeps the frames' own times.
            joint_names, correctives: of `write_hands_glb`.

        Returns:
            what was written.

        Raises:
            OSError: the disk is full; names the file, and an earlier one stays. ValueError: see `make_rig`.
        """
        files = [path for path in (glb, bvh) if path is not None]
        found = self.hands()
        if not found:
            for path in files:
                logger.warning("no frame has a hand: %s is not written", path.name)
            return []
        rows: list[int] = []  # with times that rise as float32: the file cannot tell closer ones apart
        for row, seconds in enumerate(self._seconds):
            if not rows or np.float32(seconds) > np.float32(self._seconds[rows[-1]]):
                rows.append(row)
        times = np.array(self._seconds)[rows]
        moving: list[MovingHand] = []
        for number, (hands, held) in enumerate(found, 1):
            assets, betas = hands[-1].assets, np.asarray(hands[-1].betas, np.float64)
            rest_wrist = assets.J_regressor[0] @ (assets.v_template + assets.shapedirs @ betas)
            pose, transl = (
                np.stack([hand.pose for hand in hands]),
                np.stack([hand.wrist for hand in hands]) - rest_wrist,
            )
            name = "" if len(found) == 1 else f"{assets.side}_hand"
            if name and any(hand.name == name for hand in moving):
                name += f"_{number}"
            moving.append(MovingHand(assets, pose[rows], betas, transl[rows], name))
            words = "%d frames of a %s hand, %d without it held: %s"
            logger.info(words, len(self._frames), assets.side, held, *(file.name for file in files[:1]))
        files = [] if glb is None else [glb]
        if glb is not None:
            write_hands_glb(glb, moving, times, correctives=correctives, joint_names=joint_names)
        for number, hand in enumerate(moving if bvh is not None else [], 1):
            path = bvh if number == 1 else bvh.with_name(f"{bvh.stem}_{number}{bvh.suffix}")
            even = even_rows(times, fps)
            motion = (hand.assets, hand.pose[even], hand.betas, hand.transl[even])
            write_bvh(path, *motion, fps=fps, joint_names=joint_names)
            files.append(path)
        return files


def even_rows(times: np.ndarray, fps: float) -> np.ndarray:
    """Which of the keys at ``times`` (T,) s each frame shows, at ``fps`` a second from 0 s to the last key."""
    steps = np.minimum(np.diff(times, prepend=0.0), _LONGEST_GAP)
    times = np.cumsum(steps)
    clock = np.arange(round(times[-1] * fps) + 1) / fps
    return np.maximum(np.searchsorted(times, clock + 0.5 / fps, side="right") - 1, 0)


@contextlib.contextmanager
def motion_files(
    fps: float, glb: Path | None, bvh: Path | None, *, joint_names: str = "mano", correctives: bool = False
) -> Iterator[HandMotion]:
    """A `HandMotion` that is written when the block ends, also by Ctrl-C or a fault, with the frames until then.

    But where the block ends with an error of the system, as on a full disk, an earlier file stays.
    """
    motion, failure = HandMotion(), None
    try:
        yield motion
    except BaseException as error:
        failure = error
        raise
    finally:
        if (glb or bvh) and not isinstance(failure, OSError):
            motion.files += motion.write(fps, glb, bvh, joint_names=joint_names, correctives=correctives)
