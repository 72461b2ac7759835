"""Hands all over the picture of a 110-degree lens, against the same hands seen by a pinhole camera that faces them.

``python -m benchmarks.studies.wide_angle`` prints a table; ``--json`` one JSON object with ``cameras``.

Rendered pictures of unseen synthetic people are warped into the picture of a wide camera at the same place, turned so
that the hand lies anywhere in it (evenly over its area). Each hand is estimated as the photo demo does, by the shipped
identity-aware network with the person's true shape, from the label's box; the fisheye once through perspective crops,
once from the whole picture made straight, once as if it had no distortion. Wide pictures lose sharpness by being
warped; ``pinhole_warped`` is a narrow camera turned to the hand, whose picture is warped once as well.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from datasets import build_dataset
from datasets.image_crop import whole_image_box
from datasets.synthetic.data_set import SynthesisOptions, write_data_set
from src.photos.api import ANONYMOUS, PERSONAL, PhotoEstimator, load
from src.photos.boxes import Region
from src.photos.camera import Camera
from src.photos.image import Photo, UnusableImage
from utils.camera import project_numpy, square_box, turn_to_ray
from utils.cameras.lens import CameraModel
from utils.cameras.views import View

SIZE, DEGREES = (1180, 880), 110.0
FRAMES = 3  # of each person, by eight cameras
#: Degrees off the axis between which hands are reported together.
RINGS = (0, 15, 30, 45, 62)


@dataclass
class Seen:
    """A hand as one camera sees it: the picture, the camera, the label's box (3,) px and joints (21,3) m."""

    image: np.ndarray
    camera: Camera
    box: np.ndarray
    joints: np.ndarray


@functools.cache
def fisheye() -> CameraModel:
    """As bent as lenses are that are sold as 110 degrees wide; as many pixels a degree as the narrow pictures."""
    K = np.array([[614.0, 0, (SIZE[0] - 1) / 2], [0, 614.0, (SIZE[1] - 1) / 2], [0, 0, 1]])
    return CameraModel(K, np.array([-0.02, 0.004, -0.002, 0.0002]), "fisheye", SIZE, "fisheye")


@functools.cache
def wide_pinhole() -> CameraModel:
    """No lens bends anything: what a plane shows of 110 degrees, at as many pixels a degree in its middle."""
    width, height = (round(2 * 614 * np.tan(np.radians(DEGREES * side / SIZE[0] / 2))) for side in SIZE)
    K = np.array([[614.0, 0, (width - 1) / 2], [0, 614.0, (height - 1) / 2], [0, 0, 1]])
    return CameraModel(K, np.zeros(0), size=(width, height), source="wide pinhole")


@functools.cache
def narrow_pinhole() -> CameraModel:
    """A narrow camera with as many pixels a degree."""
    return CameraModel(
        np.array([[614.0, 0, 319.5], [0, 614.0, 239.5], [0, 0, 1]]), np.zeros(0), size=(640, 480), source="narrow"
    )


@functools.cache
def rays_of(lens: CameraModel) -> np.ndarray:
    """(H,W,3) float32, of all pixels."""
    width, height = lens.size
    return lens.unproject(np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)).astype(np.float32)


def turned(seen: Seen, lens: CameraModel, ray: np.ndarray) -> Seen:
    """The same hand from the same place with another lens, which is turned so that the hand lies along ``ray`` (3,)."""
    middle = seen.camera.model.unproject(seen.box[:2])
    rotation = (turn_to_ray(torch.as_tensor(ray)[None])[0] @ turn_to_ray(torch.as_tensor(middle)[None])[0].T).numpy()
    rays = rays_of(lens) @ rotation.astype(np.float32)
    with np.errstate(all="ignore"):
        source = np.where(rays[..., 2:] > 0.1, project_numpy(rays, seen.camera.K.astype(np.float32)), np.float32(-1e4))
    image = cv2.remap(seen.image, source[..., 0], source[..., 1], cv2.INTER_CUBIC)
    joints = seen.joints @ rotation.T
    return Seen(image, Camera(lens.K, lens.source, lens=lens), square_box(lens.project(joints), 1.0), joints)


def hands(seed: int, people: int, folder: Path) -> Iterator[tuple[Seen, np.ndarray]]:
    """Hands of unseen people as the narrow cameras of the synthetic set see them, with the person's betas (10,)."""
    for number in range(people):
        root = folder / str(number)
        write_data_set(root, SynthesisOptions(1, FRAMES, seed=seed + number, left_fraction=0.0), [8], workers=1)
        data = build_dataset("dex_ycb", root, "s1_test", allow_missing_subjects=True)
        for row in range(len(data)):
            K, joints = data.columns["K_image"][row].astype(np.float64), data.columns["joints"][row].astype(np.float64)
            box = square_box(project_numpy(joints, K), 1.0)
            if (np.abs(box[:2] - [319.5, 239.5]) + box[2] < [300, 220]).all():  # crops are all within the picture
                yield Seen(data.full_image(row), Camera(K, "narrow"), box, joints), data.columns["betas"][row]


def estimates(tools: PhotoEstimator, seen: Seen, ray: np.ndarray, betas: np.ndarray) -> dict[str, np.ndarray | None]:
    """Joints (21,3) m by every treatment, each turned so that they can be compared with ``seen.joints``; None: none."""
    shape = tools.shape()
    shape.betas, shape.is_settled = betas.astype(np.float64), True
    bent, flat = turned(seen, fisheye(), ray), turned(seen, wide_pinhole(), ray)
    ahead = turned(seen, narrow_pinhole(), np.array([0.0, 0.0, 1.0]))

    def joints(one: Seen, camera: Camera, through_lens: bool = True) -> np.ndarray | None:
        photo, region = Photo("", None, one.image), Region(one.box, "label", False, "label")
        try:
            if through_lens:
                found = tools.estimate(photo, camera, region, shape)
            else:
                found = tools.estimate_in_picture(photo, camera, region, shape, None)
        except UnusableImage:
            return None
        # The rotation between the two frames, from the true joints.
        u, _, v = np.linalg.svd(seen.joints.T @ one.joints)
        return found.joints @ (u @ v).T

    whole = View.of_box(bent.camera.lens, whole_image_box(*SIZE), 1.9)
    camera = Camera(whole.K, "")
    straight = Seen(whole.image(bent.image), camera, square_box(camera.project(bent.joints), 1.0), bent.joints)
    return {
        "pinhole": joints(seen, seen.camera, False),
        "pinhole_warped": joints(ahead, ahead.camera, False),
        "fisheye": joints(bent, bent.camera),
        "fisheye_straightened": joints(straight, camera, False),
        "fisheye_taken_for_pinhole": joints(bent, Camera(bent.camera.K, ""), False),
        "wide_pinhole": joints(flat, flat.camera),
        "wide_pinhole_plain_crops": joints(flat, Camera(flat.camera.K, ""), False),
    }


def measure(args: argparse.Namespace) -> dict[str, object]:
    tools, generator, lens = load(PERSONAL, device="cpu"), np.random.default_rng(args.seed), fisheye()
    assert tools.personal is not None, f"{ANONYMOUS} and {PERSONAL} belong to what is shipped"
    rows, angles = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seen, betas in tqdm(hands(args.seed, args.people, Path(folder)), unit="hand", disable=None):
            ray = lens.unproject(generator.uniform([70, 70], [SIZE[0] - 71, SIZE[1] - 71]))
            found = estimates(tools, seen, ray, betas)
            off = {name: _errors(joints, seen.joints) for name, joints in found.items()}
            rows.append(off)
            angles.append(np.degrees(np.arccos(ray[2])))
    angles = np.array(angles)
    cameras: dict[str, object] = {}
    for name in rows[0]:
        errors = np.array([row[name] for row in rows])
        known = np.isfinite(errors[:, 0])
        cameras[name] = {"mpjpe_mm": _mean(errors[known, 0]), "wrist_mm": _mean(errors[known, 1])}
        cameras[name]["refused"] = int((~known).sum())
        cameras[name]["mpjpe_mm_by_degrees"] = {
            f"{low} to {high}": _mean(errors[known & (angles >= low) & (angles < high), 0])
            for low, high in zip(RINGS, RINGS[1:])
        }
    return {"hands": len(rows), "cameras": cameras}


def _errors(joints: np.ndarray | None, truth: np.ndarray) -> tuple[float, float]:
    """Wrist-relative mean joint error and error of the wrist, mm; NaN without a hand."""
    if joints is None:
        return np.nan, np.nan
    off = 1000 * (joints - truth)
    return float(np.linalg.norm(off - off[:1], axis=1).mean()), float(np.linalg.norm(off[0]))


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 2) if len(values) else None


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Hands all over the picture of a 110-degree lens.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--people", type=int, default=12, help="some 20 pictures of each")
    parser.add_argument("--seed", type=int, default=2000, help="of the people and of where their hands are")
    return parser


def main() -> None:
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.WARNING)
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{result['hands']} hands; mm of joints about the wrist, of the wrist; by degrees off the axis")
    for name, row in result["cameras"].items():
        rings = "  ".join(f"{ring}: {value}" for ring, value in row["mpjpe_mm_by_degrees"].items())
        print(f"{name:26s} {row['mpjpe_mm']:6} {row['wrist_mm']:6}   refused {row['refused']}   {rings}")


if __name__ == "__main__":
    main()
