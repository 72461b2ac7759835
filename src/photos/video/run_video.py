"""``run.py --phase demo --video FILE``: every hand followed through a video, drawn in and written down."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from src.models.mesh_joints import is_mesh_model
from src.photos.api import PhotoEstimator
from src.photos.camera import Camera
from src.photos.gallery import command_line
from src.photos.image import shown_name
from src.photos.keypoint_estimator import for_person
from src.photos.result import CONVENTIONS, SCHEMA, Result
from src.photos.run_images import LOCK, describe
from src.photos.setup import camera_poses, open_tools, stopped_by_signals
from src.photos.video.drawing import all_words, annotate
from src.photos.video.glimpses import without_glimpses
from src.photos.video.live_page import LivePage, live_page
from src.photos.video.look_back import LookBack
from src.photos.video.records import frame_record, frame_records
from src.photos.video.smoothing import FrameHands, LaggedTracks, TrackFitter, fit_tracks
from src.photos.video.sources import open_source
from src.photos.video.track import TrackedHand
from src.photos.video.tracker import HandTracker
from src.photos.video.watching import WatchedShape, Watching, open_watching
from utils.cameras.poses import CameraPose
from utils.export.motion import PosedHand, motion_files
from utils.file_lock import locked
from utils.files import writable_folder
from utils.video_files import SUFFIX, Frame, VideoInfo, VideoWriter, count_frames, open_video

logger = logging.getLogger(__name__)

#: A frame's hands, and its picture (H,W,3) uint8 RGB.
Shown = tuple[FrameHands, np.ndarray]


@dataclass
class Outputs:
    """The files of a video, written from its frames; several times, where later passes know more.

    Attributes:
        folder: where they are. name: of all of them. info: of the video. head: line about it. camera: of all frames.
        motion: options of `motion_files`; glb, bvh: are asked for.
        poses: where the camera is in each frame, or None. page: that shows a stream, or None.
        moving: the animations that were written.
    """

    folder: Path
    name: str
    info: VideoInfo
    head: dict[str, Any]
    camera: Camera
    glb: bool
    bvh: bool
    motion: dict[str, Any]
    poses: list[CameraPose] | None = None
    page: LivePage | None = None
    frames: int = 0
    with_hand: int = 0
    errors: list[Exception] = field(default_factory=list)
    moving: list[Path] = field(default_factory=list)

    @property
    def video(self) -> Path:
        return self.folder / f"{self.name}_annotated{SUFFIX}"

    @property
    def records(self) -> Path:
        """A line about the video, then one a frame."""
        return self.folder / f"{self.name}_frames.jsonl"

    def write(self, shown: Iterable[Shown]) -> None:
        glb, bvh = (
            self.folder / f"{self.name}_hands.{kind}" if asked else None
            for kind, asked in (("glb", self.glb), ("bvh", self.bvh))
        )
        self.frames, self.with_hand, self.errors = 0, 0, []
        with (
            motion_files(self.info.fps, glb, bvh, **self.motion) as motion,
            frame_records(self.records) as write_line,
            VideoWriter(self.video, self.info) as writer,
        ):
            self.moving = motion.files  # filled when it ends, however it does
            write_line(json.dumps(self.head, allow_nan=False))
            for frame, image in shown:
                hands, line = self._line(self._placed(frame))
                found = [hand for hand in hands if hand.result is not None]
                results = [hand.result for hand in found]
                words = [*all_words(results, self.camera), f"{frame.seconds:.2f} s, frame {frame.number + 1}"]
                picture = annotate(image, results, words)
                writer.write(picture, frame.seconds)
                write_line(line)
                if self.page is not None:
                    self.page.show(picture, words, frame.seconds)
                motion.add(frame.seconds, *(_posed(hand) for hand in found if hand.result.pose is not None))
                failed = [hand.failed for hand in hands if hand.failed is not None]
                self.frames += 1
                self.with_hand += bool(found)
                self.errors += failed if failed and not found else []

    @contextlib.contextmanager
    def naming_earlier_ones(self) -> Iterator[None]:
        """Animations of videos of this name that this run did not write are named in the end, also when interrupted."""
        try:
            yield
        finally:
            name = re.compile(rf"{re.escape(self.name)}_hands(_\d+)?\.(glb|bvh)")
            for file in sorted(self.folder.iterdir()):
                if name.fullmatch(file.name) and file not in self.moving:
                    logger.warning("%s is of an earlier run, not of this one", file)

    def _placed(self, frame: FrameHands) -> FrameHands:
        """The frame's hands with the place of its camera."""
        if self.poses is None:
            return frame
        pose = self.poses[frame.number]
        return replace(frame, hands=[
            hand if hand.result is None else replace(hand, result=replace(hand.result, camera_pose=pose))
            for hand in frame.hands
        ])  # fmt: skip

    def _line(self, frame: FrameHands) -> tuple[list[TrackedHand], str]:
        """The hands that a frame shows, and its line; a number that JSON cannot hold is its hand's fault alone."""
        hands = list(frame.hands)
        try:
            return hands, frame_record(frame.number, frame.seconds, hands, frame.reason)
        except ValueError:
            for place, hand in enumerate(hands):
                try:
                    frame_record(frame.number, frame.seconds, [hand], "")
                except ValueError as error:
                    hands[place] = replace(hand, result=None, failed=error)
            return hands, frame_record(frame.number, frame.seconds, hands, frame.reason)


def _posed(hand: TrackedHand) -> PosedHand:
    result: Result = hand.result.in_world(y_down=True)
    return PosedHand(result.assets, result.pose, result.betas, result.joints[0], hand.track)


def video_demo(args: argparse.Namespace) -> Path:
    """Annotate a video.

    Leaves in ``--output`` ``<name>_annotated.mp4`` (without sound) and ``<name>_frames.jsonl``: a line about the whole,
    then one a frame. Whenever it ends, with the video, before it or by a signal, both are valid and belong together;
    until then, and where the disk is full, the lines are in ``<name>_frames.partial.jsonl``. With ``--glb`` and
    ``--bvh`` also ``<name>_hands.glb`` and ``.bvh``, of the frames until then; see `HandMotion`. As soon as the hand is
    known well enough, ``<name>_identity.json`` (`Watching`).

    What is written while the video runs is each frame's own. Once it is over, the frames are fitted together and all
    files written again; with ``--lag`` they are fitted as they come, and written once.

    Returns:
        the annotated video.

    Raises:
        FileNotFoundError, ValueError, OSError: no such video, options that make no sense, an output that cannot be
            written or read back. RuntimeError: every frame failed for another reason than that no hand is in it.
    """
    source = open_source(args.video)
    path, info = source.path, source.info
    poses = camera_poses(args, lambda: count_frames(path), "frames")
    folder = writable_folder(args.output)
    tools = open_tools(args)
    model = tools.estimator.card.model
    has_pose = not is_mesh_model(model)
    if not has_pose and (args.glb or args.bvh or args.lag is not None):
        asked = "--lag needs" if args.lag is not None else "--glb and --bvh need"
        raise ValueError(f"{asked} the joints' rotations, but {model} gives a mesh alone; leave them out")
    sharing = True if args.one_person else False if args.two_shapes else None
    watching = open_watching(args, tools, folder / f"{source.name}_identity.json")
    shape = None if watching is None else WatchedShape(tools, watching)
    tracker = HandTracker(tools, path, (info.width, info.height), sharing, shape)
    head = {"schema": SCHEMA, "command": command_line(), "video": os.fsencode(path).decode("utf-8", "replace")}
    head |= {"fps": info.fps, "width": info.width, "height": info.height, **describe(tools), **CONVENTIONS}
    motion = {"joint_names": args.joint_names, "correctives": args.glb == "animated_correctives"}
    outputs = Outputs(
        folder, source.name, info, head, tracker.camera, bool(args.glb), bool(args.bvh), motion, poses
    )  # fmt: skip
    lag = 0 if source.is_live and not args.each_frame_alone and args.lag is None else args.lag
    fitter = TrackFitter(tools.estimator) if has_pose and (not args.each_frame_alone or lag is not None) else None
    lagged = None if fitter is None or lag is None else LaggedTracks(fitter, lag)
    kept: list[FrameHands] = []
    with (
        stopped_by_signals(),
        locked(folder / LOCK),
        outputs.naming_earlier_ones(),
        live_page(args.port, source) as outputs.page,
    ):
        bar = tqdm(source.frames, total=info.claimed or None, desc=shown_name(path), unit="frame", disable=None)
        with contextlib.nullcontext() if watching is None else watching:
            outputs.write(live(tracker, bar, lagged, None if lagged is not None or fitter is None else kept))
        count = outputs.frames
        if len(outputs.errors) == count:
            raise RuntimeError(f"none of {count} frames could be worked on: {outputs.errors[0]}") from outputs.errors[0]
        if info.claimed and count < info.claimed:
            logger.warning("%s gives %d of the %d frames that it announces", path, count, info.claimed)
        if kept and outputs.with_hand:
            kept = without_glimpses(kept) if tracker.looker.can_read else kept
            again(outputs, path, tracker, fit_tracks(kept, fitter, *persons(tools, watching, kept)), fitter)
    if outputs.with_hand:
        logger.info("%d frames, a hand in %d: %s, %s", count, outputs.with_hand, outputs.video, outputs.records)
    else:
        logger.warning("no usable hand in any of %d frames; %s says why of each", count, outputs.records)
    return outputs.video


def live(
    tracker: HandTracker, frames: Iterable[Frame], lagged: LaggedTracks | None, kept: list[FrameHands] | None
) -> Iterator[Shown]:
    """Frames with their hands as they come; of hands only those that were seen often enough to be ones.

    Args:
        lagged: smooths them, some frames later; kept: takes what a fit of all frames needs.
    """
    back = LookBack(tracker)
    for number, frame in enumerate(frames):
        photo = tracker.photo(frame.image)
        found = FrameHands(number, frame.seconds, tracker(photo, frame.seconds), tracker.reason)
        if kept is not None:
            kept.append(found.light())
            for earlier, hand in back.add(number, photo, frame.seconds, kept[-1].hands):
                kept[earlier] = kept[earlier].with_hand(hand).light()
        if lagged is None:
            yield _confirmed(found), photo.image
            continue
        for settled, image in lagged.push(found, photo.image):
            yield _confirmed(lagged.fitter.with_meshes(settled)), image
    if lagged is not None:
        for settled, image in lagged.flush():
            yield _confirmed(lagged.fitter.with_meshes(settled)), image


def persons(
    tools: PhotoEstimator, watching: Watching | None, frames: list[FrameHands]
) -> tuple[TrackFitter | None, set[int]]:
    """What fits the calibrated person's hands, by all that is known in the end, and the tracks of others."""
    if watching is None or watching.online.views == 0:
        return None, set()
    identity = watching.online.identity()
    tracks = {hand.track for frame in frames for hand in frame.hands}
    others = {track for track in tracks if watching.is_another(track)}
    return TrackFitter(for_person(tools, identity).estimator, identity.betas), others


def _confirmed(frame: FrameHands) -> FrameHands:
    return replace(frame, hands=[hand for hand in frame.hands if hand.is_confirmed])


def again(outputs: Outputs, path: Path, tracker: HandTracker, fitted: list[FrameHands], fitter: TrackFitter) -> None:
    """Write the files anew, with the frames fitted together; until they are whole, the earlier ones stay."""
    pictures = (tracker.photo(frame.image).image for frame in open_video(path)[1])
    shown = zip((fitter.with_meshes(frame) for frame in fitted), pictures, strict=False)
    bar = tqdm(shown, total=len(fitted), desc="fitted together", unit="frame", disable=None)
    with tempfile.TemporaryDirectory(dir=outputs.folder, prefix=".video_") as name:
        whole = replace(outputs, folder=Path(name))
        whole.write(bar)
        for file in sorted(Path(name).iterdir()):
            os.replace(file, outputs.folder / file.name)
    first, outputs.moving = outputs.moving, [outputs.folder / file.name for file in whole.moving]
    for file in set(first) - set(outputs.moving):  # of a hand that was taken back
        file.unlink(missing_ok=True)
    outputs.with_hand = whole.with_hand
