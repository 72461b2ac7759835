"""Other estimators' results of a video: whose hand is whose, frames fitted together, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch

import handid
from calibrate_from_shape_params import run as calibrate
from options.calibrate import get_args_parser as calibrate_parser
from options.run_options import get_args_parser as run_parser
from src.engine.estimates.command import personalise
from src.engine.estimates.tracks import frames_of
from src.estimators import read_estimates
from src.personalization.estimates.evidence import prepare
from src.personalization.estimates.people import people_of
from src.personalization.estimates.personalise import personalise_rows
from src.personalization.terms.pose_prior import habit_prior
from template import HandModel, load_hand_assets
from template.assets import STAND_IN_PATH
from utils.artifacts import load_predictions
from utils.identity import Identity

ASSETS = load_hand_assets(STAND_IN_PATH)
HAND = HandModel(ASSETS, dtype=torch.float64)
K = np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]])
FRAMES, SIZE, FPS = 24, (640, 480), 30.0
BETAS = np.array([1.2, -0.8, 0.5, *np.zeros(7)])


def moving(start: tuple[float, float, float], speed: tuple[float, float, float], turn: float) -> np.ndarray:
    """Joints (FRAMES,21,3) m of a right hand that moves and turns steadily; metres a second, radians a second."""
    seconds = torch.arange(FRAMES, dtype=torch.float64)[:, None] / FPS
    pose = torch.eye(3, dtype=torch.float64).repeat(FRAMES, 16, 1, 1)
    pose[:, 0] = roma.rotvec_to_rotmat(seconds * torch.tensor([[0.0, turn, 0.4]]) + torch.tensor([[3.0, 0, 0]]))
    place = torch.tensor([start]) + seconds * torch.tensor([speed])
    return HAND.joints(pose, torch.as_tensor(BETAS).expand(FRAMES, 10), place).numpy()


def write(path: Path, hands: list[tuple[np.ndarray, bool]], keep: np.ndarray | None = None) -> Path:
    """A video's estimates as plain joints, 4 px and 6 mm off in every frame, frame by frame, the first hand first.

    Args:
        hands: joints m (FRAMES,21,3) and whether it is a left hand; keep: (FRAMES,) frames in which the first is found.
    """
    random, rows = np.random.default_rng(0), []
    for frame in range(FRAMES):
        for number, (joints, left) in enumerate(hands):
            if number == 0 and keep is not None and not keep[frame]:
                continue
            pixels = joints[frame] @ K.T
            pixels = pixels[:, :2] / pixels[:, 2:] + 4 * random.normal(size=(21, 2))
            rows.append((pixels, joints[frame] - joints[frame, 0] + 0.006 * random.normal(size=(21, 3)), left, frame))
    pixels, space, left, frame = (np.array(column) for column in zip(*rows, strict=True))
    names = np.array([f"clip_{number:04d}" for number in frame])
    np.savez(path, keypoints_2d=pixels, joints_3d=space, is_left=left, image=names, K=K, image_size=SIZE)
    return path


def truth_identity() -> Identity:
    return Identity(BETAS, ASSETS.name, ASSETS.hash, 190.0, side="both")


@pytest.fixture(scope="module")
def hands() -> list[tuple[np.ndarray, bool]]:
    """A right hand, and the mirror image of one: a left hand."""
    right = moving((-0.15, 0.0, 0.6), (0.35, 0.0, 0.1), 0.5)
    left = moving((-0.12, 0.05, 0.55), (0.2, -0.1, 0.0), -0.4) * [-1, 1, 1]
    return [(right, False), (left, True)]


def test_frames_together_shake_less_and_are_nearer(tmp_path: Path, hands: list[tuple[np.ndarray, bool]]) -> None:
    """Both hands, one of them not found in three frames; against each frame on its own."""
    keep = ~np.isin(np.arange(FRAMES), [8, 9, 10])
    rows = read_estimates(write(tmp_path / "joints.npz", hands, keep), "joints")
    alone = handid.personalise(rows, identity=truth_identity(), hand=ASSETS)
    together = handid.personalise(rows, identity=truth_identity(), hand=ASSETS, fps=FPS)
    assert set(alone.track) == {0} and together.usable.all()
    for joints, left in hands:
        own = together.is_left == left
        assert len(set(together.track[own])) == 1
        there = np.array([int(name[-4:]) for name in together.image_name[own]])
        off = [1000 * (found.joints[own] - joints[there]) for found in (alone, together)]
        shake = [np.linalg.norm(np.diff(one[11:], 2, axis=0), axis=-1).mean() for one in off]
        mean = [np.linalg.norm(one, axis=-1).mean() for one in off]
        assert shake[1] < 0.3 * shake[0] and mean[1] < 0.8 * mean[0], (shake, mean)
    assert len(set(together.track)) == 2


@pytest.mark.parametrize("video", [False, True], ids=["frames", "video"])
def test_usual_poses_are_believed(tmp_path: Path, hands: list[tuple[np.ndarray, bool]], video: bool) -> None:
    """These flat hands are none of the usual: the wider those are spread, the further from them a hand may be."""
    rows = read_estimates(write(tmp_path / "joints.npz", hands[:1]), "joints")
    ready, far = prepare(rows, ASSETS, people_of(ASSETS)), []
    motion = (np.zeros(FRAMES, dtype=np.int64), np.arange(FRAMES) / FPS) if video else None
    for spread in (1.0, 9.0):
        usual = habit_prior(ASSETS, torch.float32, spread=spread)
        found = personalise_rows(ready, {0: truth_identity()}, ASSETS, motion=motion, usual=usual)
        pose = torch.as_tensor(found.rows.pose).permute(2, 3, 1, 0)
        far.append(spread * float(usual.pull(usual.logarithms(pose))[0].mean()))
    assert far[1] > 1.02 * far[0]


def test_two_right_hands_that_cross_stay_who_they_are(tmp_path: Path) -> None:
    """Rows come in the other order after the crossing."""
    high = moving((-0.15, -0.12, 0.6), (0.4, 0.0, 0.0), 0.3)
    low = moving((0.15, 0.06, 0.6), (-0.4, 0.0, 0.0), 0.3)
    late = np.arange(FRAMES)[:, None, None] >= FRAMES // 2
    swapped = [(np.where(late, low, high), False), (np.where(late, high, low), False)]
    rows = read_estimates(write(tmp_path / "joints.npz", swapped), "joints")
    found = frames_of(rows)
    first = (np.arange(len(rows)) % 2 == 0) ^ (found.frame >= FRAMES // 2)  # is the high hand
    assert len(set(found.track[first])) == len(set(found.track[~first])) == 1
    assert set(found.track) == {1, 2} and not found.video.any()


def test_commands_take_a_video(tmp_path: Path, hands: list[tuple[np.ndarray, bool]]) -> None:
    path = write(tmp_path / "joints.npz", hands)
    given = ["--estimates", str(path), "--format", "joints", "--device", "cpu"]
    output = tmp_path / "out"
    video = ["--phase", "personalise", *given, "--fps", "30", "--output", str(output)]
    personalise(run_parser().parse_args(video))
    content = json.loads((output / "predictions.json").read_text())
    tracks = {(entry["hand"]["side"], entry["track"]) for entry in content["images"]}
    assert len(content["images"]) == 2 * FRAMES and len(tracks) == 2
    assert set(load_predictions(output / "rows.npz").sequence_id) == {1, 2}
    identity = handid.load_identity(output / "identity_subject-00.json")
    assert identity.side == "both" and identity.evidence["repeats"]["videos"] == 1

    people = tmp_path / "people"
    calibrate(calibrate_parser().parse_args([*given, "--subjects", "tracks", "--output", str(people)]))
    assert sorted(file.name for file in people.iterdir()) == ["identity_subject-01.json", "identity_subject-02.json"]
    with pytest.raises(ValueError, match="give one of both"):
        words = ["--identity", str(output / "identity_subject-00.json"), "--subjects", "tracks"]
        personalise(run_parser().parse_args([*video, *words]))


def test_pictures_without_numbers_are_no_video(tmp_path: Path, hands: list[tuple[np.ndarray, bool]]) -> None:
    with np.load(write(tmp_path / "joints.npz", hands)) as archive:
        content = dict(archive)
    content["image"] = np.char.add(content["image"], "_left")
    np.savez(tmp_path / "named.npz", **content)
    with pytest.raises(ValueError, match="'clip_0000_left' has no number at the end"):
        handid.personalise(tmp_path / "named.npz", format="joints", identity=truth_identity(), hand=ASSETS, fps=30)
    content["image"] = np.char.add(
        np.char.replace(content["image"], "_left", "_"), content["is_left"].astype(int).astype(str)
    )
    np.savez(tmp_path / "numbered.npz", **content)  # clip_0007_1: the second hand of a picture
    with pytest.raises(ValueError, match="24 videos of a frame or two"):
        frames_of(read_estimates(tmp_path / "numbered.npz", "joints"))
    with pytest.raises(ValueError, match="no 2D keypoints, by which hands are followed"):
        frames_of(replace(read_estimates(tmp_path / "joints.npz", "joints"), keypoints_2d=None))
    with pytest.raises(ValueError, match="fps is 0"):
        handid.personalise(tmp_path / "joints.npz", format="joints", identity=truth_identity(), hand=ASSETS, fps=0)


def test_folders_tell_videos_apart(tmp_path: Path, hands: list[tuple[np.ndarray, bool]]) -> None:
    file = write(tmp_path / "v.npz", hands[:1])
    content = {**np.load(file)}
    content["image"] = np.array([f"P{row % 2}/frame_{row // 2:04d}.jpg" for row in range(FRAMES)])
    np.savez(file, **content)
    frames = frames_of(read_estimates(file, "joints"))
    assert frames.video.tolist() == [0, 1] * (FRAMES // 2) and len(set(zip(frames.video, frames.track))) == 2
