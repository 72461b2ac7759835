"""Hands over time: every frame on its own, all frames together, and each as it comes, on unseen synthetic people.

``python benchmarks/video.py`` prints a table; ``--json`` one JSON object with ``tracking`` (see `scenes.tracking`),
``sequence``, ``online`` (see `scenes.online_cases`) and ``seconds_3000_frames``; ``--only`` measures one of them, or
``flat``, hands that are shown flat for a while (see `scenes.flat_motion`).
``smoothing_bound``: what frame by frame leaves where its errors are averaged over so many seconds. A smoother that knew
exactly how the hand moves could do that, and keeps what neighbours have in common.

Each sequence is 3 s at 30 frames a second of one camera; for half a second a box of noise covers the hand. The shipped
identity-aware network is told the person's true shape and looks at the hand's true box, the keypoint network at the
same; what is compared is what is made of their outputs. Covered frames count as not seen where the keypoint network's
confidence says so. Left hands are right ones in a mirror. The strengths in `terms/smoothness.py` and
`fitting/fixed_lag.py` were chosen on the people of ``--seed 1000``; what is reported is ``--seed 2000``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.ndimage import uniform_filter1d  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.scenes.flat_motion import measure_flat  # noqa: E402
from benchmarks.scenes.online_cases import measure_online  # noqa: E402
from benchmarks.scenes.tracking import measure_tracking  # noqa: E402
from benchmarks.scenes.video_scenes import FPS, Clip, kept, look, make_clip  # noqa: E402
from src.engine.checkpoint import ModelCard, load_network  # noqa: E402
from src.personalization.fitting.fit import FitResult, fit_frames  # noqa: E402
from src.personalization.fitting.fixed_lag import DEFAULTS as CAUSAL  # noqa: E402
from src.personalization.fitting.fixed_lag import FixedLagSmoother  # noqa: E402
from src.personalization.fitting.sequence import SequenceOptions, fit_sequence  # noqa: E402
from src.personalization.solver.status import usable  # noqa: E402
from src.photos.detector.search import KeypointReader  # noqa: E402
from template import load_hand_assets  # noqa: E402
from template.kinematics import JointsModel, posed_points  # noqa: E402

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
#: Frames over which `averaged_errors` takes means.
SPANS = (5, 9, 15, 31, 61, 91)
#: Below this mean confidence of the keypoints a frame counts as one without a hand.
SEEN = 0.35


@dataclass
class Observed:
    """What the networks say of a clip, and the truth; F frames, float64 on the CPU.

    pose: (F,16,3,3); K: (F,3,3) px; keypoints: (F,21,2) px; confidence: (F,21); betas: (10,); joints: (F,21,3) m.
    hidden: (F,) covered frames.
    """

    pose: torch.Tensor
    K: torch.Tensor
    keypoints: torch.Tensor
    confidence: torch.Tensor
    betas: torch.Tensor
    joints: torch.Tensor
    hidden: torch.Tensor

    @property
    def seconds(self) -> torch.Tensor:
        """(F,)"""
        return torch.arange(len(self.pose), dtype=torch.float64) / FPS


def observe_clip(clip: Clip, network: torch.nn.Module, card: ModelCard, reader: KeypointReader) -> Observed:
    """Run both networks at the true boxes."""
    said, keypoints, confidence = look(clip, network, card, reader, clip.betas)
    confidence = torch.where(confidence.mean(dim=1, keepdim=True) < SEEN, 0.0, confidence)
    return Observed(
        said["pose"].double(),
        torch.as_tensor(clip.K).double().expand(len(keypoints), 3, 3),
        keypoints,
        confidence,
        torch.as_tensor(clip.betas),
        torch.as_tensor(clip.joints),
        torch.as_tensor(clip.hidden),
    )


def observations(seed: int, count: int, cache: Path | None) -> list[Observed]:
    """Of ``count`` people of ``seed``, from ``cache`` where they are there already."""
    keypoints, keypoint_card, of_keypoints = load_network(WEIGHTS / "pose_2d.safetensors", expect="pose_2d")
    network, card, of_network = load_network(WEIGHTS / "mano_identity.safetensors", expect="mano_identity")
    reader, weights = KeypointReader(keypoints, keypoint_card, torch.device("cpu")), f"{of_keypoints}_{of_network}"
    found = []
    for number in tqdm(range(1, count + 1), unit="clip", disable=None):
        path = None if cache is None else cache / f"clip_{seed}_{number}_{weights}.pt"
        make = lambda number=number: observe_clip(make_clip(seed, number), network.eval(), card, reader)  # noqa: E731
        found.append(kept(path, Observed, make))
    return found


def offsets_mm(model: JointsModel, clip: Observed, fit: FitResult) -> torch.Tensor:
    """(F,21,3) of the fitted joints from the true ones, camera frame."""
    rest = model.rest_points(fit.betas.double())
    points = posed_points(model, fit.pose.double(), rest).points + (fit.transl.double() + rest[:, 0])[:, None]
    return 1000 * (points[:, model.to_standard] - clip.joints)


def errors(model: JointsModel, clip: Observed, fit: FitResult) -> dict[str, float]:
    """Wrist-relative error of frames seen and hidden, mm; of the wrist, mm; of accelerations, mm / s^2."""
    off = offsets_mm(model, clip, fit)
    relative = (off - off[:, :1]).norm(dim=-1).mean(dim=1)
    second = (off[2:] - 2 * off[1:-1] + off[:-2]) * FPS**2
    return {
        "mpjpe_mm": float(relative[~clip.hidden].mean()),
        "acceleration_mm_s2": float(second.norm(dim=-1).mean()),
        "wrist_mm": float(off[~clip.hidden, 0].norm(dim=-1).mean()),
        "hidden_mpjpe_mm": float(relative[clip.hidden].mean()),
        "hidden_wrist_mm": float(off[clip.hidden, 0].norm(dim=-1).mean()),
    }


def averaged_errors(model: JointsModel, clip: Observed, fit: FitResult) -> dict[str, dict[str, float]]:
    """`errors` of frames seen, each frame's offsets averaged over those seen in the time about it; by seconds."""
    off, weight = offsets_mm(model, clip, fit).numpy(), (~clip.hidden).numpy().astype(float)[:, None, None]
    rows = {}
    for span in SPANS:
        total, count = (uniform_filter1d(part, span, axis=0, mode="constant") for part in (off * weight, weight))
        left = (total / np.maximum(count, 1e-9))[~clip.hidden.numpy()]
        relative = np.linalg.norm(left - left[:, :1], axis=-1).mean()
        rows[f"{span / FPS:.1f}s"] = {
            "mpjpe_mm": float(relative),
            "wrist_mm": float(np.linalg.norm(left[:, 0], axis=-1).mean()),
        }
    return rows


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of each key over clips."""
    return {key: round(float(np.mean([row[key] for row in rows])), 2) for key in rows[0]}


def in_a_stream(smoother: FixedLagSmoother, clip: Observed) -> FitResult:
    """Frame by frame as it comes."""
    settled = []
    for row, seconds in enumerate(clip.seconds.tolist()):
        settled += smoother.update(clip.pose[row], clip.K[row], clip.keypoints[row], seconds, clip.confidence[row])
    settled += smoother.flush()
    return FitResult(**{name: torch.cat([getattr(fit, name) for _, fit in settled]) for name in vars(settled[0][1])})


def treatments(
    model: JointsModel, options: SequenceOptions, causal: SequenceOptions
) -> dict[str, Callable[[Observed], FitResult]]:
    """What can be made of a clip's observations, by name."""
    exact = JointsModel(load_hand_assets())

    def alone(clip: Observed) -> FitResult:
        betas = clip.betas.expand(len(clip.pose), -1)
        fit = fit_frames(model, clip.pose, betas, clip.K, clip.keypoints, clip.confidence, options.frame)
        # A frame without keypoints shows what the frame before showed.
        last = torch.where(usable(fit.status), torch.arange(len(fit.status)), 0).cummax(0).values
        return FitResult(**{name: value[last] for name, value in vars(fit).items()})

    def together(clip: Observed) -> FitResult:
        return fit_sequence(
            model, clip.pose, clip.betas, clip.K, clip.keypoints, clip.seconds, clip.confidence, options
        )

    def as_it_comes(lag: int) -> Callable[[Observed], FitResult]:
        return lambda clip: in_a_stream(FixedLagSmoother(exact, clip.betas, causal, lag), clip)

    return {"frame_by_frame": alone, "smoothed": together, "lag_0": as_it_comes(0), "lag_5": as_it_comes(5)}


def seconds_of(model: JointsModel, clips: list[Observed], options: SequenceOptions, frames: int = 3000) -> float:
    """Median wall time of fitting ``frames`` frames of one hand: the first clip, there and back again and again."""
    names, length = ("pose", "K", "keypoints", "confidence"), len(clips[0].pose)
    there = torch.arange(frames) % (2 * length)
    row = torch.minimum(there, 2 * length - 1 - there)  # a hand that jumps from clip to clip is not one hand's motion
    whole = {name: getattr(clips[0], name)[row] for name in names}
    seconds, taken = torch.arange(frames, dtype=torch.float64) / FPS, []
    for _ in range(3):
        begin = time.perf_counter()
        fit_sequence(
            model, whole["pose"], clips[0].betas, whole["K"], whole["keypoints"], seconds, whole["confidence"], options
        )
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Run everything, or what is asked for; see the module's docstring."""
    cache = None if args.cache is None else Path(args.cache)
    result: dict[str, object] = {"machine": describe_machine(), "clips": args.clips}
    if args.only in (None, "tracking"):
        result["tracking"] = measure_tracking(args.seed, range(1, args.clips + 1), cache)
    if args.only in (None, "sequence"):
        result |= measure_sequence(args, cache)
    if args.only in (None, "online") and args.people:
        result["online"] = measure_online(args.seed, args.people, cache)
    if args.only == "flat":
        result["flat"] = measure_flat(args.seed, args.clips)
    return result


def measure_sequence(args: argparse.Namespace, cache: Path | None) -> dict[str, object]:
    """Each treatment's errors, what smoothing could gain, and the seconds of 3,000 frames where they are asked for."""
    clips = observations(args.seed, args.clips, cache)
    assets = load_hand_assets()
    model, exact = JointsModel(assets, dtype=torch.float32), JointsModel(assets)
    sequence: dict[str, dict[str, float]] = {}
    bound: list[dict[str, dict[str, float]]] = []
    for name, treat in treatments(model, SequenceOptions(), CAUSAL).items():
        begin = time.process_time()
        fits = [treat(clip) for clip in clips]
        took = 1000 * (time.process_time() - begin) / sum(len(clip.pose) for clip in clips)
        pairs = list(zip(clips, fits, strict=True))
        sequence[name] = means([errors(exact, *pair) for pair in pairs]) | {"ms_a_frame": round(took, 2)}
        if name == "frame_by_frame":
            bound = [averaged_errors(exact, *pair) for pair in pairs]
    found = {"sequence": sequence, "smoothing_bound": {span: means([row[span] for row in bound]) for span in bound[0]}}
    return found | ({"seconds_3000_frames": round(seconds_of(model, clips, SequenceOptions()), 2)} if args.time else {})


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Hands over time, on unseen synthetic people.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--clips", type=int, default=20, help="people, one clip of 3 s of each")
    parser.add_argument("--seed", type=int, default=2000, help="of the people")
    parser.add_argument("--people", type=int, default=40, help="of `online`, a video of 10 s of each; 0: leave it out")
    parser.add_argument("--cache", help="folder for clips, and for what the networks said of each in its true boxes")
    parser.add_argument("--only", choices=("tracking", "sequence", "online", "flat"), help="measure that alone")
    parser.add_argument("--time", action="store_true", help="also time 3,000 frames (an idle machine)")
    return parser


def main() -> None:
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.WARNING)
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    rows = {"tracking": result["tracking"]} if "tracking" in result else {}
    for part in ("sequence", "smoothing_bound", "online", "flat"):
        rows |= result.get(part, {})
    for name, row in rows.items():
        print(f"{name:15s} " + "  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
