"""How much can smoothing gain? ``python -m benchmarks.studies.smoothing_bound [--cache DIR]``

A smoother that knew exactly how the hand moves could average each frame's error over its neighbours, and would keep
what neighbours have in common. This prints the frame-by-frame fit's error with that average taken over ever longer
times (of the frames in which the hand is seen; `benchmarks.video`, the same people): what is left bounds every
smoother with that memory from below.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import uniform_filter1d

from benchmarks.scenes.video_scenes import FPS
from benchmarks.video import Observed, observations, offsets_mm, treatments
from src.personalization.fitting.fixed_lag import DEFAULTS as CAUSAL
from src.personalization.fitting.sequence import SequenceOptions
from template import load_hand_assets
from template.kinematics import JointsModel

#: Frames over which errors are averaged; 1: as they are.
SPANS = (1, 5, 9, 15, 31, 61, 91)


def averaged(values: np.ndarray, seen: np.ndarray, frames: int) -> np.ndarray:
    """Means of (F,21,3) over ``frames`` frames about each, of those that are ``seen`` (F,)."""
    weight = seen.astype(float)[:, None, None]
    total, count = (uniform_filter1d(part, frames, axis=0, mode="constant") for part in (values * weight, weight))
    return total / np.maximum(count, 1e-9)


def measure(clips: list[Observed]) -> dict[int, tuple[float, float]]:
    """By span: wrist-relative error and the wrist's, mm, means over clips."""
    exact, model = JointsModel(load_hand_assets()), JointsModel(load_hand_assets(), dtype=torch.float32)
    alone = treatments(model, SequenceOptions(), CAUSAL)["frame_by_frame"]
    rows: dict[int, list[tuple[float, float]]] = {span: [] for span in SPANS}
    for clip in clips:
        off, seen = offsets_mm(exact, clip, alone(clip)).numpy(), ~clip.hidden.numpy()
        for span in SPANS:
            left = averaged(off, seen, span)[seen]
            relative = np.linalg.norm(left - left[:, :1], axis=-1).mean()
            rows[span].append((float(relative), float(np.linalg.norm(left[:, 0], axis=-1).mean())))
    return {span: tuple(np.mean(values, axis=0).tolist()) for span, values in rows.items()}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--cache", type=Path, help="folder for the networks' outputs")
    args = parser.parse_args()
    found = measure(observations(args.seed, args.clips, args.cache))
    print("errors averaged over   MPJPE      wrist")
    for span, (relative, wrist) in found.items():
        change = " ".join(
            f"{100 * (now / was - 1):+4.0f}%" for now, was in zip((relative, wrist), found[1], strict=True)
        )
        print(f"{span / FPS:16.2f} s  {relative:6.2f} mm  {wrist:6.2f} mm   {change}")


if __name__ == "__main__":
    main()
