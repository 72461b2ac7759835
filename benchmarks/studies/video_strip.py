"""The README's film strip: a synthetic video, its hands fitted frame by frame and over time.

``python -m benchmarks.studies.video_strip`` writes a video of an unseen synthetic person, one hand covered for half a
second, runs the video demo on it twice, told the person's shape, and draws frames of both and a fingertip's way.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.scenes.two_hand_scenes import TrackingClip, make_tracking_clip
from benchmarks.scenes.video_scenes import FPS
from options.run_options import get_args_parser
from src.personalization.terms.hand_size import length_gradient
from src.photos.video.run_video import video_demo
from template import load_hand_assets
from template.kinematics import JointsModel
from utils.artifacts import Identity, save_identity
from utils.camera import project_numpy, square_box
from utils.joints import TIP_JOINTS
from utils.video_files import VideoInfo, VideoWriter, open_video

SHOWN = 6
_TIP = TIP_JOINTS[1]  # of the index finger, standard order


def run(clip: TrackingClip, folder: Path, *options: str) -> tuple[list[np.ndarray], list[dict]]:
    """Annotated frames (H,W,3) uint8 RGB and their lines, of the demo on a clip."""
    images = clip.images
    height, width = images[0].shape[:2]
    with VideoWriter(folder / "clip.mp4", VideoInfo(width, height, FPS, len(images))) as writer:
        for number, image in enumerate(images):
            writer.write(image, number / FPS)
    np.save(folder / "clip_K.npy", clip.K)
    assets = load_hand_assets()
    betas = torch.as_tensor(clip.betas, dtype=torch.float64)
    length = 1000 * float(length_gradient(JointsModel(assets), betas, "hand")[0])
    identity = Identity(clip.betas, assets.name, assets.hash, length, side="both", method="true")
    save_identity(folder / "person.json", identity)
    output = folder / "out"
    words = ["--phase", "demo", "--video", str(folder / "clip.mp4"), "--output", str(output), "--keypoints", "network"]
    words += ["--identity", str(folder / "person.json"), "--device", "cpu", *options]
    video_demo(get_args_parser().parse_args(words))
    lines = (output / "clip_frames.jsonl").read_text(encoding="utf-8").splitlines()
    frames = [frame.image for frame in open_video(output / "clip_annotated.mp4")[1]]
    return frames, [json.loads(line) for line in lines[1:]]


def tip_heights(lines: list[dict], clip: TrackingClip, hand: int) -> np.ndarray:
    """(F,) mm, y of a hand's index fingertip about its wrist, of the hand that is nearest in each frame; NaN: none."""
    heights = np.full(len(lines), np.nan)
    for frame, line in enumerate(lines):
        found = [np.array(one["joints"]) for one in (line, *line.get("other_hands", ())) if one.get("joints")]
        if found:
            truth = clip.hands[hand].joints[frame]
            near = min(found, key=lambda joints: float(np.linalg.norm(joints[0] - truth[0])))
            if np.linalg.norm(near[0] - truth[0]) < 0.1:
                heights[frame] = 1000 * (near[_TIP, 1] - near[0, 1])
    return heights


def strip(frames: list[np.ndarray], shown: np.ndarray, clip: TrackingClip, hand: int, size: int = 220) -> np.ndarray:
    """Squares (size, S * size, 3) about a hand, side by side."""
    squares = []
    for number in shown:
        x, y, side = square_box(project_numpy(clip.hands[hand].joints[number], clip.K), 1.7)
        affine = np.array([[size / side, 0, size / 2 - x * size / side], [0, size / side, size / 2 - y * size / side]])
        squares.append(cv2.warpAffine(frames[number], affine, (size, size)))
    return np.hstack(squares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--person", type=int, default=3, help="even ones show both hands")
    parser.add_argument("--cache", type=Path, help="folder for rendered clips")
    parser.add_argument("--output", type=Path, default=Path("docs/video_strip.jpg"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    clip = make_tracking_clip(args.seed, args.person, args.cache)
    both = []
    for options in (("--each_frame_alone",), ()):
        with tempfile.TemporaryDirectory() as folder:
            both.append(run(clip, Path(folder), *options))
    covered = min(range(len(clip.hands)), key=lambda number: clip.hands[number].visible.sum())
    hidden = np.flatnonzero(~clip.hands[covered].visible)
    first = int(np.clip(hidden[0] - 6, 0, len(clip.pictures) - 1)) if len(hidden) else 0
    last = int(np.clip(hidden[-1] + 6, 0, len(clip.pictures) - 1)) if len(hidden) else len(clip.pictures) - 1
    shown = np.linspace(first, last, SHOWN).round().astype(int)
    figure, axes = plt.subplots(3, 1, figsize=(13, 7.2), height_ratios=[2, 2, 1.7], constrained_layout=True)
    for axis, (frames, _), name in zip(axes, both, ("each frame alone", "over time"), strict=False):
        axis.imshow(strip(frames, shown, clip, covered))
        axis.set_title(name, loc="left")
        axis.set_axis_off()
    seconds = np.arange(len(clip.pictures)) / FPS
    truth = clip.hands[covered].joints
    axes[2].plot(seconds, 1000 * (truth[:, _TIP, 1] - truth[:, 0, 1]), color="0.6", lw=4, label="true")
    for (_, lines), name, colour in zip(both, ("each frame alone", "over time"), ("tab:red", "tab:blue"), strict=True):
        axes[2].plot(seconds, tip_heights(lines, clip, covered), color=colour, lw=1.2, label=name)
    for frame in np.flatnonzero(~clip.hands[covered].visible):
        axes[2].axvspan((frame - 0.5) / FPS, (frame + 0.5) / FPS, color="0.92", lw=0)
    axes[2].set(xlabel="s (grey: that hand cannot be seen)", ylabel="index fingertip\nbelow wrist, mm")
    axes[2].legend(loc="best", ncols=3)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=100, pil_kwargs={"quality": 85})
    plt.close(figure)


if __name__ == "__main__":
    main()
