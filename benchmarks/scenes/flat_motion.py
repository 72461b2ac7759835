"""Open hands that face the camera and then curl, turn away, or the reverse, and hands that never do, as a detector's
keypoints show them: what a video of them becomes, with and without hands shown flat.

Nothing is rendered: shapes and finger angles are the synthetic data set's, the points those of mediapipe's landmark
model with the noise that it states. A tenth of that noise's variance is new in each frame, the rest stays for half a
second or, as far as the model says that all pictures of a person share it, for ever. The 3D guess bends straight
fingers, as mediapipe's does (docs/real_hands.md). `fitting.shown_flat` was made with seed 500.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from datasets.synthetic.scene.grasping import closure_angles, finger_pose
from datasets.synthetic.scene.motion import minimum_jerk, slow_noise
from datasets.synthetic.scene.population import random_numbers, subject_betas
from src.personalization.calibration.from_keypoints import keypoint_options
from src.personalization.calibration.online import OnlineCalibration
from src.personalization.calibration.population import SHIPPED_PRIOR, shapes_of
from src.personalization.landmarks.model import LandmarkModel, load_landmarks
from src.personalization.terms.pose_prior import PALM, FlatHand
from src.photos.api import PhotoEstimator, shipped_population
from src.photos.estimator import HandInPicture, Keypoints
from src.photos.image import UnusableImage
from src.photos.keypoint_estimator import KeypointEstimator
from src.photos.shape_filter import ShapeFilter
from src.photos.video.smoothing import FrameHands, TrackFitter, fit_tracks
from src.photos.video.track import TrackedHand
from src.photos.video.watching import WatchedShape, Watching
from template import HandAssets, HandModel, load_hand_assets
from template.kinematics import joints_model, posed_points
from utils.camera import project, square_box, turn_to_ray

FPS, FRAMES, WIDTH, HEIGHT = 30, 90, 640, 480
KINDS = ("curls", "turns", "opens", "turns_in", "never")
#: s: how long noise lasts; part of its variance that is new in each frame; of the guess's bend, towards usual poses.
LASTS, NEW, BENT = 0.5, 0.1, 0.5
#: Degrees, standard deviation: how far palms of hands that are shown lean about either axis, and sway.
LEAN, SWAY = 4.0, 1.0


@dataclass
class FlatClip:
    """A right hand in F frames; float64.

    Attributes:
        kind: of `KINDS`; change: s, when it begins to change and when it has; shown: (F,) open and facing the camera.
        betas: (10,); pose: (F,16,3,3); joints: (F,21,3) m; K: (3,3) px.
        keypoints: (F,21,2) px; world: (F,21,3) m, standard order.
    """

    kind: str
    change: tuple[float, float]
    shown: np.ndarray
    betas: np.ndarray
    pose: torch.Tensor
    joints: np.ndarray
    K: np.ndarray
    keypoints: np.ndarray
    world: np.ndarray


def make_flat_clip(assets: HandAssets, landmarks: LandmarkModel, seed: int, number: int) -> FlatClip:
    """Of the 1-based person ``number`` of ``seed``; kinds take turns."""
    generator = random_numbers(seed, number, 10**9 + 99)
    kind, betas = KINDS[number % len(KINDS)], subject_betas(seed, number)
    seconds = np.arange(FRAMES) / FPS
    begin, end = 1.0 + generator.uniform(0, 0.3), 1.6 + generator.uniform(0, 0.4)
    share = minimum_jerk(seconds, begin, end)
    shown = seconds <= begin
    if kind in ("opens", "turns_in"):
        share, shown = 1 - share, seconds >= end
    if kind == "never":
        share, shown = 0.6 + 0.4 * share, np.zeros(FRAMES, dtype=bool)
    flat = closure_angles(str(generator.choice(["open", "flat", "spread"])), np.full(5, generator.uniform(0, 1)))
    closed = closure_angles(
        str(generator.choice(["relaxed", "fist", "pointing", "power_sphere", "pinch"])), generator.uniform(0.6, 1, 5)
    )
    curls, turns = kind in ("curls", "opens", "never"), kind in ("turns", "turns_in")
    angles = (
        flat + np.outer(share * curls, closed - flat) + np.radians(slow_noise(generator, seconds, np.full(21, 1.5)))
    )
    axis = generator.uniform(0, 2 * np.pi)
    away = np.radians(generator.uniform(35, 75)) * share * (turns or generator.uniform(0, 0.5))
    lean = np.radians(generator.normal(0, LEAN, 2)) + np.radians(slow_noise(generator, seconds, np.full(2, SWAY)))
    tilt = lean + away[:, None] * [np.cos(axis), np.sin(axis)]
    about = FlatHand.of(assets)
    face = turn_to_ray(about.normal[None])[0].mT.numpy()
    if generator.random() < 0.5:
        face = np.diag([1.0, -1.0, -1.0]) @ face
    roll = generator.uniform(0, 2 * np.pi) + np.radians(slow_noise(generator, seconds, np.array([6.0])))[:, 0]
    root = Rotation.from_rotvec(np.column_stack([tilt, np.zeros(FRAMES)])) * Rotation.from_euler("z", roll[:, None])
    pose = torch.eye(3, dtype=torch.float64).repeat(FRAMES, 16, 1, 1)
    pose[:, 0] = torch.as_tensor(root.as_matrix() @ face)
    pose[:, 1:] = roma.rotvec_to_rotmat(torch.as_tensor(finger_pose(angles)).view(FRAMES, 15, 3))
    place = np.array([*generator.uniform(-0.06, 0.06, 2), generator.uniform(0.35, 0.6)])
    place = torch.as_tensor(place + slow_noise(generator, seconds, np.full(3, 0.01)))
    shape = torch.as_tensor(betas).expand(FRAMES, 10)
    hand = HandModel(assets, dtype=torch.float64)
    transl = place - hand(pose[:1], shape[:1]).joints[0, 9]
    K = np.array([[615.0, 0, (WIDTH - 1) / 2], [0, 615.0, (HEIGHT - 1) / 2], [0, 0, 1]])

    model = joints_model(assets, landmarks)
    rest = model.rest_points(shape)

    def points(of: torch.Tensor) -> torch.Tensor:
        return posed_points(model, of, rest).points[:, model.to_standard]

    lying = points(pose) + (transl + rest[:, 0])[:, None]
    pixels = project(lying, torch.as_tensor(K).expand(FRAMES, 3, 3)).numpy()
    box = np.ptp(pixels, axis=1).max(axis=1)[:, None, None] * landmarks.std_box[:, None]
    keypoints = pixels + box * lasting(generator, (21, 2), landmarks.correlation)
    usual = torch.as_tensor(assets.hands_mean).view(15, 3)
    bent = pose.clone()
    bent[:, 1:] = roma.rotvec_to_rotmat((1 - BENT) * roma.rotmat_to_rotvec(pose[:, 1:]) + BENT * usual)
    world = points(bent).numpy() + 0.005 * lasting(generator, (21, 3), landmarks.correlation)
    world -= world.mean(axis=1, keepdims=True)
    return FlatClip(
        kind, (begin, end), shown, betas, pose, hand(pose, shape, transl).joints.numpy(), K, keypoints, world
    )


def lasting(generator: np.random.Generator, size: tuple[int, ...], shared: float) -> np.ndarray:
    """Noise (F,*size) of variance 1, of which ``shared`` stays, `NEW` does not, and the rest fades in `LASTS` s."""
    noise, fade = generator.normal(size=(FRAMES, *size)), np.exp(-1 / (FPS * LASTS))
    slow = noise.copy()
    for frame in range(1, FRAMES):
        slow[frame] = fade * slow[frame - 1] + (1 - fade**2) ** 0.5 * noise[frame]
    new, stays = generator.normal(size=(FRAMES, *size)), generator.normal(size=size)
    return NEW**0.5 * new + (1 - NEW - shared) ** 0.5 * slow + shared**0.5 * stays


def measure_flat(seed: int, people: int) -> dict[str, dict[str, dict[str, float]]]:
    """Means over clips, by whether the shape is known (``known``) or grows while the clip is watched (``watched``),
    and by treatment: ``never_flat``, as if no hand could be shown so, and ``told``.

    ``shown``, ``changing`` (within 0.25 s of the end of that), ``other`` frames: wrist-relative error ``_mm``; how far
    fingertips are off in depth from the palm's, ``_tips_mm``; of the wrist, ``_wrist_mm``. ``missed``,
    ``wrongly_flat``, ``lost`` (refused): frames a clip; ``switches``: of flat and not, a clip. ``largest_step_mm``: of
    the error from a frame to the next.
    """
    assets = load_hand_assets()
    landmarks, population = load_landmarks("mediapipe", assets.hash), shipped_population(assets, SHIPPED_PRIOR)
    estimator = KeypointEstimator(assets, population, landmarks, flat=False)
    told, blind = TrackFitter(estimator), TrackFitter(estimator)
    blind.flat = None
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    for number in tqdm(range(1, people + 1), unit="clip", disable=None):
        clip = make_flat_clip(assets, landmarks, seed, number)
        known = ShapeFilter(assets, None, population)
        known.betas, known.is_settled = clip.betas, True
        options = keypoint_options(assets, shapes_of(assets, population), landmarks=landmarks)
        online = OnlineCalibration(options=options, assets=assets)
        with tempfile.TemporaryDirectory() as folder:  # the identity that watching writes
            watching = Watching(online, Path(folder) / "identity.json")
            watched = WatchedShape(PhotoEstimator(estimator, population=population), watching)
            clips = {"known": followed(estimator, clip, known), "watched": followed(estimator, clip, watched)}
        for name, frames in clips.items():
            for treatment, fitter in (("never_flat", blind), ("told", told)):
                scores = scored(clip, fit_tracks(frames, fitter))
                rows.setdefault(name, {}).setdefault(treatment, []).append(scores)
    keys = {key: None for row in rows["known"]["told"] for key in row}
    return {
        name: {
            treatment: {
                key: round(float(np.mean([row[key] for row in of if key in row])), 2) for key in keys
            } for treatment, of in treatments.items()
        } for name, treatments in rows.items()
    }  # fmt: skip


def scored(clip: FlatClip, fitted: list[FrameHands]) -> dict[str, float]:
    """Of one clip; see `measure_flat`."""
    results = [frame.hands[0].result for frame in fitted]
    seen, results = np.array([one is not None for one in results]), [one for one in results if one is not None]
    off = np.full_like(clip.joints, np.nan)
    off[seen] = 1000 * (np.stack([one.joints for one in results]) - clip.joints[seen])
    flat = seen.copy()
    flat[seen] = ["shown_flat" in one.notes for one in results]
    relative = np.linalg.norm(off - off[:, :1], axis=2).mean(axis=1)
    tips = np.abs(off[:, 8::4, 2] - off[:, PALM, 2].mean(axis=1, keepdims=True)).mean(axis=1)
    ends = clip.change[0] if clip.shown[0] else clip.change[1]
    changing = (np.abs(np.arange(FRAMES) / FPS - ends) <= 0.25) & clip.shown.any()
    scores = {
        "missed": float((clip.shown & ~flat).sum()), "wrongly_flat": float((flat & ~clip.shown).sum()),
        "switches": float((flat[1:] != flat[:-1]).sum()), "lost": float((~seen).sum()),
        "largest_step_mm": float(np.nanmax(np.linalg.norm(np.diff(off, axis=0), axis=2).mean(axis=1))),
    }  # fmt: skip
    for name, which in (("shown", clip.shown), ("changing", changing), ("other", ~clip.shown)):
        if which.any():
            parts = (("", relative), ("_tips", tips), ("_wrist", np.linalg.norm(off[:, 0], axis=1)))
            scores |= {f"{name}{part}_mm": float(np.nanmean(value[which])) for part, value in parts}
    return scores


def followed(estimator: KeypointEstimator, clip: FlatClip, shape: ShapeFilter) -> list[FrameHands]:
    """What a video's frames say one after the other of ``shape``, before they are fitted together."""
    frames, before, image = [], None, np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for number, (points, world) in enumerate(zip(clip.keypoints, clip.world, strict=True)):
        box, seconds, result = square_box(points, 1.0), number / FPS, None
        seen = Keypoints(points, np.ones(21), "simulated", world, 0.99)
        try:
            result = estimator.estimate(HandInPicture(image, clip.K, box, shape, seen, before))
            shape.saw(result, 1, seconds)
        except UnusableImage:
            pass
        before = result
        frames.append(FrameHands(number, seconds, [TrackedHand(1, box, False, True, 0, result)]).light())
    return frames
