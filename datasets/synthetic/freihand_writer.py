"""Synthetic FreiHAND: single right hands in the official layout (docs/facts.md 3), every JSON list included.

``python -m datasets.synthetic.freihand_writer --root data/synthetic_freihand --num_train 64 --num_eval 16``

The four versions of a training sample differ in background only. Masks show the hand up to the wrist. People of
the evaluation part are not in the training part; as in the official set, nothing says who is who.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from datasets.freihand.dataset import ROOT_JOINT
from datasets.freihand.files import PARTS, SIZE, VERSIONS, image_name, list_path
from datasets.synthetic.data_set import hand_model
from datasets.synthetic.dex_ycb_writer import write_image
from datasets.synthetic.hand_studio import StudioHand, green_screen, make_studio_hand, random_place
from datasets.synthetic.scene.cameras import look_at
from options.command_line import run_command, values_of, writer_parser
from template import HandModel, pose_to_axis_angle
from utils.camera import project_numpy
from utils.files import write_json, write_text

logger = logging.getLogger(__name__)

#: People: the training part's are numbered from 11, the evaluation part's are the first ten.
_TRAINING_PEOPLE, _EVALUATION_PEOPLE = 32, 10
_MARGIN = 6  # pixels between the joints and the image's edge
_ARM_ANGLE = 40.0  # degrees at least between the direction to the camera and that of the forearm
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]


def write_freihand(
    root: str | Path,
    num_train: int,
    num_eval: int,
    seed: int = 0,
    mano_dir: str | None = None,
    evaluation_labels: bool = True,
) -> None:
    """Write a data set.

    Args:
        num_train, num_eval: unique samples; each one to train on has four images.
        mano_dir: folder of the hand model, as in `template.load_hand_assets`.
        evaluation_labels: False: only K and scale of the evaluation part, as first released.

    Raises:
        FileExistsError: if a FreiHAND is there already.
        ValueError: if a number is not positive.
    """
    root = Path(root)
    if num_train < 1 or num_eval < 1:
        raise ValueError(f"num_train is {num_train} and num_eval {num_eval}; both must be positive")
    if list_path(root, "training", "K").exists() or (root / "synthetic.json").exists():
        raise FileExistsError(f"{root} holds a data set already; choose another --root or delete it")
    official = hand_model(mano_dir, "right", "freihand", "regressed")
    for number, (part, count) in enumerate(zip(PARTS, (num_train, num_eval), strict=True)):
        (root / part / "rgb").mkdir(parents=True, exist_ok=True)
        lists: dict[str, list] = {name: [] for name in ("K", "xyz", "mano", "verts", "scale")}
        for index in tqdm(range(count), desc=part, unit="sample", disable=None):
            generator = np.random.default_rng(np.random.SeedSequence([seed, number, index]))
            subject = 11 + index % _TRAINING_PEOPLE if part == "training" else 1 + index % _EVALUATION_PEOPLE
            hand = make_studio_hand(seed, subject, generator, mano_dir)
            K, camera = _aim(hand, generator)
            pose, transl = hand.in_camera(camera)
            axis_angle = pose_to_axis_angle(torch.as_tensor(pose)[None])[0].numpy()
            for name, value in list_entries(official, pose, axis_angle, hand.betas, transl, K).items():
                lists[name].append(value)
            shot = hand.photograph(K, camera, SIZE)
            for version, name in enumerate(VERSIONS if part == "training" else VERSIONS[:1]):
                background = (green_screen if name == "gs" else random_place)(generator, SIZE)
                path = root / part / "rgb" / image_name(index + count * version)
                write_image(path, hand.develop(shot, background, generator), _QUALITY)
            if part == "training":
                (root / part / "mask").mkdir(exist_ok=True)
                write_image(root / part / "mask" / image_name(index), shot.mask, _QUALITY)
        for name, entries in lists.items():
            if part == "training" or evaluation_labels or name in ("K", "scale"):
                write_text(list_path(root, part, name), json.dumps(entries, allow_nan=False))
    options = {"num_train": num_train, "num_eval": num_eval, "seed": seed, "evaluation_labels": evaluation_labels}
    write_json(root / "synthetic.json", {"options": options, "hand_model": official.assets.hash})
    logger.info("wrote %d x %d + %d images to %s", num_train, len(VERSIONS), num_eval, root)


def list_entries(
    official: HandModel, pose: np.ndarray, axis_angle: np.ndarray, betas: np.ndarray, transl: np.ndarray, K: np.ndarray
) -> dict[str, list | float]:
    """One entry of each JSON list (docs/facts.md 3) for a hand in the camera's frame.

    Args:
        official: the hand model with FreiHAND's joints, float64.
        pose: (16, 3, 3), and axis_angle: (48,) the same in radians; betas: (10,); transl: (3,) metres; K: (3, 3) px.
    """
    output = official(torch.as_tensor(pose)[None], torch.as_tensor(betas)[None], torch.as_tensor(transl)[None])
    xyz, vertices = output.joints[0].numpy(), output.vertices[0].numpy()
    fingers = axis_angle[3:] - official.assets.hands_mean
    # Root pixel and scale: the end of a MANO vector of 61 (docs/facts.md 3.2).
    scale = (K[0, 0] + K[1, 1]) / 2 / xyz[ROOT_JOINT, 2]
    root = xyz[ROOT_JOINT, :2] * scale + K[:2, 2]
    return {
        "K": K.tolist(),
        "xyz": xyz.tolist(),
        "mano": [np.concatenate([axis_angle[:3], fingers, betas, root, [scale]]).tolist()],
        "verts": vertices.tolist(),
        "scale": float(np.linalg.norm(xyz[9] - xyz[10])),
    }


def _aim(hand: StudioHand, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics (3, 3) and pose (4, 4) of a camera that sees all joints, not along the forearm."""
    arm = hand.joints[0] - hand.joints[9]
    while True:
        focal = generator.uniform(430, 560)
        centre = (SIZE - 1) / 2 + generator.normal(0, 1.5, 2)
        K = np.array([[focal, 0, centre[0]], [0, focal + generator.normal(0, 0.5), centre[1]], [0, 0, 1.0]])
        angles = np.radians([generator.uniform(-180, 180), np.degrees(np.arcsin(generator.uniform(-0.6, 0.98)))])
        target = hand.joints.mean(axis=0) + generator.normal(0, 0.012, 3)
        camera = look_at(angles, focal * generator.uniform(0.0012, 0.0017), target)
        camera[:3, :3] = camera[:3, :3] @ Rotation.from_euler("z", generator.uniform(0, 2 * np.pi)).as_matrix()
        pixels = project_numpy(hand.points_in_camera(hand.joints, camera), K)
        outward = camera[:3, 3] - target
        cosine = outward @ arm / (np.linalg.norm(outward) * np.linalg.norm(arm))
        if cosine < np.cos(np.radians(_ARM_ANGLE)) and np.abs(pixels - (SIZE - 1) / 2).max() < SIZE / 2 - _MARGIN:
            return K, camera


def get_args_parser() -> argparse.ArgumentParser:
    parser = writer_parser("synthetic.freihand_writer", "Write a synthetic data set in FreiHAND's layout.")
    parser.add_argument("--num_train", type=int, default=64, help="unique training samples, four images each")
    parser.add_argument("--num_eval", type=int, default=16, help="evaluation samples")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(get_args_parser(), lambda args: write_freihand(**values_of(args))))
