"""Identity while watching: after 3 s and 10 s of videos of unseen synthetic people, against calibrating all at once.

Each video is a story of 10 s of one person and one camera, half a second of it covered, rendered at 5 frames a second:
frames a fifth of a second apart share nearly all of their errors, so more would tell little. The shipped anonymous
network and the keypoint network look at the true boxes. No length is measured, so absolute size rests on people's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.scenes.video_scenes import kept, look, make_clip
from src.engine.checkpoint import ModelCard, load_network
from src.evaluation.shape import zero_pose_mpvpe
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.online import OnlineCalibration
from src.personalization.calibration.population import default_options
from src.personalization.terms.hand_size import lengths_mm
from src.photos.detector.search import KeypointReader
from template import HandAssets, HandModel, load_hand_assets
from utils.artifacts import Predictions
from utils.identity import HALF_95

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
NETWORK = "mano_baseline_conf"
#: Frames a second, of a story of so many seconds; when one looks.
FPS, SECONDS, LOOKS = 5, 10, {"3s": 3, "10s": 10}


@dataclass
class Watched:
    """What the networks say of a video; F frames, float64. start: frames that the story has before the first.

    pose (F,16,3,3), predicted (F,10), K (3,3) px, keypoints (F,21,2) px, confidence (F,21); betas (10,): the truth.
    """

    pose: torch.Tensor
    predicted: torch.Tensor
    K: torch.Tensor
    keypoints: torch.Tensor
    confidence: torch.Tensor
    betas: torch.Tensor
    start: int

    def predictions(self, frames: int, assets: HandAssets) -> Predictions:
        """The first frames as a file of predictions."""
        none = np.zeros(frames, dtype=np.int64)
        return Predictions(
            image_id=np.arange(frames),
            subject_id=none + 1,
            sequence_id=none,
            is_left=none > 0,
            K=self.K.expand(frames, 3, 3).numpy(),
            pose=self.pose[:frames].numpy(),
            betas=self.predicted[:frames].numpy(),
            keypoints_2d=self.keypoints[:frames].numpy(),
            keypoint_confidence=self.confidence[:frames].numpy(),
            model_name=NETWORK,
            hand_name=assets.name,
            hand_hash=assets.hash,
            dataset="video",
        )


def watch(seed: int, number: int, network: torch.nn.Module, card: ModelCard, reader: KeypointReader) -> Watched:
    """Render the video of a person and run both networks on it."""
    clip = make_clip(seed, number, FPS * SECONDS, FPS // 2)
    said, keypoints, confidence = look(clip, network, card, reader)
    start = FPS * SECONDS - len(clip.images)
    truth = torch.as_tensor(clip.betas)
    return Watched(
        said["pose"].double(), said["betas"].double(), torch.as_tensor(clip.K), keypoints, confidence, truth, start
    )


def watched(seed: int, count: int, cache: Path | None) -> list[Watched]:
    """Videos of ``count`` people of ``seed``, from ``cache`` where they are there already."""
    reader = KeypointReader(*load_network(WEIGHTS / "pose_2d.safetensors", expect="pose_2d")[:2], torch.device("cpu"))
    network, card, _ = load_network(WEIGHTS / f"{NETWORK}.safetensors", expect=NETWORK)
    found = []
    for number in tqdm(range(1, count + 1), unit="video", disable=None):
        path = None if cache is None else cache / f"online_{seed}_{number}.pt"
        found.append(kept(path, Watched, partial(watch, seed, number, network.eval(), card, reader)))
    return found


def measure_online(seed: int, count: int, cache: Path | None) -> dict[str, dict[str, float]]:
    """Zero-pose errors, mm, and how often the 95% intervals hold, at each look.

    ``offline_zero_pose_mm``: the same frames calibrated at once, as files of predictions are, which tells from the
    hands that they are a video's. ``each_alone_zero_pose_mm``: the same, every frame counting as an image of its own.
    """
    assets = load_hand_assets()
    hand = HandModel(assets)
    options = default_options(assets, NETWORK, "video")
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in LOOKS}
    for seen in tqdm(watched(seed, count, cache), unit="video", disable=None):
        online, done = OnlineCalibration(options=options, assets=assets), 0
        truth = seen.betas.numpy()
        true = lengths_mm(assets, truth, None)
        for name, seconds in LOOKS.items():
            frames = max(1, min(len(seen.pose), round(seconds * FPS) - seen.start))
            for row in range(done, frames):
                online.add(
                    seen.keypoints[row], seen.confidence[row], K=seen.K, pose=seen.pose[row], betas=seen.predicted[row]
                )
            done, identity = frames, online.settle()
            offline, alone = (
                calibrate_predictions(seen.predictions(frames, assets), assets, believed, num_images=None)[1]
                for believed in (options, replace(options, same_video=False))
            )
            betas = np.stack([identity.betas, offline.betas, alone.betas, options.population.betas_mean])
            keys = ("zero_pose_mm", "offline_zero_pose_mm", "each_alone_zero_pose_mm", "mean_hand_zero_pose_mm")
            found = dict(zip(keys, zero_pose_mpvpe(hand, betas, truth[None].repeat(4, axis=0)).tolist(), strict=True))
            for who, told in (("", identity), ("offline_", offline), ("each_alone_", alone)):
                said = lengths_mm(assets, told.betas, told.covariance)
                held = [abs(mm - true[part][0]) < HALF_95 * std for part, (mm, std) in said.items()]
                found[f"{who}hand_length_covered"] = float(held[0])
                found[f"{who}lengths_covered"] = float(np.mean(held))
            found["hand_length_interval_mm"] = 2 * HALF_95 * identity.hand_length_std_mm
            found["offline_hand_length_interval_mm"] = 2 * HALF_95 * offline.hand_length_std_mm
            found["views"] = float(online.views)
            rows[name].append(found)
    return {
        name: {key: round(float(np.mean([row[key] for row in found])), 3) for key in found[0]}
        for name, found in rows.items()
    }
