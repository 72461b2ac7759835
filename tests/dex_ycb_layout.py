"""Writes tiny data sets in DexYCB's layout: random but consistent labels, dots drawn at the joints."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from datasets.dex_ycb.splits import SERIALS, SUBJECTS
from datasets.protocol import SampleDataset
from template import HandModel, load_hand_assets, pca_to_pose

WIDTH, HEIGHT = 640, 480


class TupleDumper(yaml.SafeDumper):
    """Writes tuples with the tag that DexYCB's files carry and plain safe loaders refuse."""


TupleDumper.add_representer(
    tuple, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:python/tuple", value)
)


def intrinsics(camera: int) -> dict[str, float]:
    """Intrinsics of a camera; fx and fy differ, as in the real data."""
    return {"fx": 610.0 + camera, "fy": 612.5 - camera, "ppx": 313.25 + camera, "ppy": 245.0 - camera}


def betas_of(subject: int) -> np.ndarray:
    """Betas (10,) of a 1-based subject."""
    return np.random.default_rng(subject).normal(0, 0.8, 10)


class Hands:
    """The hands of both sides in float64, to make labels with."""

    def __init__(self, mano_dir: str | Path = "template/stand_in.npz") -> None:
        self.assets = {side: load_hand_assets(mano_dir, side) for side in ("right", "left")}
        self.models = {side: HandModel(assets, dtype=torch.float64) for side, assets in self.assets.items()}

    def label(self, side: str, betas: np.ndarray, rng: np.random.Generator, camera: int) -> dict[str, np.ndarray]:
        """pose_m (1, 51), joint_3d (1, 21, 3), joint_2d (1, 21, 2) of a random hand in front of the camera."""
        pose_m = np.concatenate([rng.normal(0, 1.0, 3), rng.normal(0, 0.4, 45), np.zeros(3)])
        pose_m[48:] = [rng.uniform(-0.15, 0.15), rng.uniform(-0.1, 0.1), rng.uniform(0.7, 1.1)]
        value = torch.from_numpy(pose_m.astype(np.float32).astype(np.float64))[None]
        pose = pca_to_pose(self.assets[side], value[:, :3], value[:, 3:48])
        beta = torch.from_numpy(betas.astype(np.float32).astype(np.float64))[None]
        joints = self.models[side].joints(pose, beta, value[:, 48:])[0].numpy()
        k = intrinsics(camera)
        u = k["fx"] * joints[:, 0] / joints[:, 2] + k["ppx"]
        v = k["fy"] * joints[:, 1] / joints[:, 2] + k["ppy"]
        labels = {"pose_m": pose_m[None], "joint_3d": joints[None], "joint_2d": np.stack([u, v], axis=1)[None]}
        return {key: array.astype(np.float32) for key, array in labels.items()}


def write_dex_ycb(
    root: Path,
    subjects: tuple[int, ...] = tuple(range(1, 11)),
    sequences: int = 2,
    frames: int = 1,
    draw_dots: bool = False,
    mano_dir: str | Path = "template/stand_in.npz",
) -> Path:
    """Write a data set; sequence i of a subject is a left hand if i is odd. Returns ``root``."""
    hands, blank = Hands(mano_dir), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture = cv2.imencode(".jpg", blank)[1].tobytes()
    for camera, serial in enumerate(SERIALS):
        _dump(root / "calibration" / "intrinsics" / f"{serial}_640x480.yml", {"color": intrinsics(camera)})
    for subject in subjects:
        name = SUBJECTS[subject - 1] if subject <= 10 else f"2021{subject:04d}-subject-{subject}"
        for number in range(sequences):
            side = "left" if number % 2 else "right"
            calibration = f"20200101_000000_subject-{subject:02d}_{side}"
            betas = {"betas": tuple(betas_of(subject).tolist())}
            _dump(root / "calibration" / f"mano_{calibration}" / "mano.yml", betas)
            folder = root / name / f"20200{subject % 10}01_{number:06d}"
            meta = {"serials": list(SERIALS), "num_frames": frames, "mano_calib": [calibration], "mano_sides": [side]}
            _dump(folder / "meta.yml", meta)
            for camera, serial in enumerate(SERIALS):
                (folder / serial).mkdir()
                for frame in range(frames):
                    rng = np.random.default_rng([subject, number, camera, frame])
                    labels = hands.label(side, betas_of(subject), rng, camera)
                    np.savez(folder / serial / f"labels_{frame:06d}.npz", **labels)
                    data = dots(labels["joint_2d"][0]) if draw_dots else picture
                    (folder / serial / f"color_{frame:06d}.jpg").write_bytes(data)
    return root


def dots(points: np.ndarray, sigma: float = 2.0) -> bytes:
    """A JPEG with a soft green dot at the wrist and a red one at the middle fingertip: (21, 2) px."""
    image = np.zeros((HEIGHT, WIDTH, 3))
    for joint, channel in ((0, 1), (12, 0)):
        along = zip((WIDTH, HEIGHT), points[joint], strict=True)
        column, row = (np.exp(-((np.arange(extent) - centre) ** 2) / (2 * sigma**2)) for extent, centre in along)
        image[..., channel] = 255 * np.outer(row, column)
    bgr = np.ascontiguousarray(image.clip(0, 255).round().astype(np.uint8)[..., ::-1])
    options = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", bgr, options)[1].tobytes()


def edit_labels(path: Path, **changes: np.ndarray) -> None:
    """Replace arrays of a labels file."""
    with np.load(path) as archive:
        labels = dict(archive)
    np.savez(path, **(labels | changes))


def centroid(weights: np.ndarray) -> np.ndarray:
    """Middle (x, y) px of weights (H, W)."""
    v, u = np.mgrid[: weights.shape[0], : weights.shape[1]]
    return np.array([(weights * u).sum(), (weights * v).sum()]) / weights.sum()


def assert_same_samples(expected: SampleDataset, found: SampleDataset) -> None:
    for index in range(len(expected)):
        one, other = expected[index], found[index]
        assert one.keys() == other.keys()
        for key, value in one.items():
            np.testing.assert_array_equal(other[key], value, strict=True)


def _dump(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.dump(value, Dumper=TupleDumper))
