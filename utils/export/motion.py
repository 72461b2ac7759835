"""A hand's motion gathered from a video's frames, and written as animated GLB or BVH however the video ends."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.export.bvh import write_bvh
from utils.export.gltf_animation import write_animated_glb
from utils.export.rig import SkinnedHand

logger = logging.getLogger(__name__)

#: No pause between two frames is held longer than this in a BVH, whose frames come at one rate: a clock jumped, s.
_LONGEST_GAP = 10.0


class PosedHand(NamedTuple):
    """A hand in one frame: pose (16,3,3), betas (10,), wrist (3,) m, OpenCV camera frame, of ``assets``."""

    assets: SkinnedHand
    pose: np.ndarray
    betas: np.ndarray
    wrist: np.ndarray


class HandMotion:
    """One hand through a video.

    Frames without the hand hold the pose before them; those before the first hand have its pose. A file has one hand:
    the side that most frames show; frames of the other side hold the pose as well. It has one shape, the last frame's,
    which rests on the most frames; every wrist stays where its frame puts it.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._hands: list[PosedHand | None] = []

    def add(self, seconds: float, hand: PosedHand | None) -> None:
        """Take in the next frame, shown at ``seconds``; None: it shows no hand."""
        self._seconds.append(seconds)
        self._hands.append(hand)

    def keys(self) -> tuple[np.ndarray, list[PosedHand], int] | None:
        """Times (T,) in seconds, rising as float32, the hand at each, how many are held; None: no frame has a hand."""
        sides = Counter(hand.assets.side for hand in self._hands if hand is not None)
        if not sides:
            return None
        side, count = sides.most_common(1)[0]
        times: list[float] = []
        hands: list[PosedHand] = []
        if others := sides.total() - count:
            logger.warning("%d frames show the other hand; the animation is of the %s one, held there", others, side)
        shown = [hand if hand is not None and hand.assets.side == side else None for hand in self._hands]
        last = next(hand for hand in shown if hand is not None)
        for seconds, hand in zip(self._seconds, shown, strict=True):
            last = hand or last
            if not times or np.float32(seconds) > np.float32(times[-1]):  # closer ones the file cannot tell apart
                times.append(seconds)
                hands.append(last)
        return np.array(times), hands, len(shown) - count

    def write(
        self,
        fps: float,
        glb: Path | None = None,
        bvh: Path | None = None,
        *,
        joint_names: str = "mano",
        correctives: bool = False,
    ) -> None:
        """Write the files that are asked for, each atomically; without a hand there is none, and a warning.

        Args:
            fps: frames a second of the BVH; the GLB keeps the frames' own times.
            joint_names, correctives: of `write_animated_glb`.

        Raises:
            OSError: the disk is full; names the file, and an earlier one stays. ValueError: see `make_rig`.
        """
        files = [path for path in (glb, bvh) if path is not None]
        found = self.keys()
        if found is None:
            for path in files:
                earlier = "; the file of that name is of an earlier run" if path.exists() else ""
                logger.warning("no frame has a hand: %s is not written%s", path, earlier)
            return
        times, hands, held = found
        assets, betas = hands[-1].assets, np.asarray(hands[-1].betas, np.float64)
        rest_wrist = assets.J_regressor[0] @ (assets.v_template + assets.shapedirs @ betas)
        pose, transl = np.stack([hand.pose for hand in hands]), np.stack([hand.wrist for hand in hands]) - rest_wrist
        if glb is not None:
            write_animated_glb(
                glb, assets, pose, betas, transl, times=times, correctives=correctives, joint_names=joint_names
            )
        if bvh is not None:
            rows = even_rows(times, fps)
            write_bvh(bvh, assets, pose[rows], betas, transl[rows], fps=fps, joint_names=joint_names)
        logger.info("%d frames of a %s hand, %d without it held: %s", len(self._hands), assets.side, held, *files[:1])


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
    motion = HandMotion()

    def write() -> None:
        if glb or bvh:
            motion.write(fps, glb, bvh, joint_names=joint_names, correctives=correctives)

    try:
        yield motion
    except OSError:
        raise
    except BaseException:
        write()
        raise
    write()
