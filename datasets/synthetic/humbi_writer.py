"""Synthetic HUMBI: right hands before a ring of cameras, in the official layout (docs/facts.md 5). Small, for tests.

``python -m datasets.synthetic.humbi_writer --root data/synthetic_humbi --num_subjects 4``

Only what belongs to the right hand is written. The published crops are rendered as such: exactly what
resizing the box of the 1920 x 1080 image to 250 x 250 pixels, each axis by its own factor, makes of the camera.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from datasets.humbi.files import CROP, Crop, crop_affine_of, hand_folder, image_name
from datasets.synthetic.data_set import hand_model
from datasets.synthetic.dex_ycb_writer import write_image
from datasets.synthetic.hand_studio import StudioHand, make_studio_hand, random_place
from datasets.synthetic.scene.cameras import look_at
from options.command_line import run_command, values_of, writer_parser
from template import HandModel, pca_to_pose, pose_to_pca
from utils.camera import project_numpy, transform_intrinsics
from utils.files import write_json, write_text

logger = logging.getLogger(__name__)

WIDTH, HEIGHT = 1920, 1080
COMPONENTS = 20

_RIG_STREAM = 10**6
_CAMERA_STEP = 4  # ids have gaps, as where cameras of the official rig see no hand
_BOX_SCALE = 1.3  # of the crop over the hand's box


def write_humbi(
    root: str | Path,
    num_subjects: int = 4,
    num_frames: int = 2,
    num_cameras: int = 3,
    seed: int = 0,
    mano_dir: str | None = None,
) -> None:
    """Write a data set.

    Args:
        num_subjects: numbered from 1; at least 3, so that every split has somebody.
        num_frames, num_cameras: of a person, of a frame.
        mano_dir: folder of the hand model, as in `template.load_hand_assets`.

    Raises:
        FileExistsError: if a HUMBI is there already. One that was stopped is written anew, if by the same options.
        ValueError: if a number is too small.
    """
    root = Path(root)
    if num_subjects < 3 or num_frames < 1 or num_cameras < 1:
        raise ValueError("num_subjects must be at least 3, num_frames and num_cameras at least 1")
    options = {"num_subjects": num_subjects, "num_frames": num_frames, "num_cameras": num_cameras, "seed": seed}
    plan = root / "unfinished.json"  # of a writer that was stopped: the same options write the same files again
    is_ours = plan.is_file() and json.loads(plan.read_text(encoding="utf-8")) == options
    if (hand_folder(root, 1).exists() or (root / "synthetic.json").exists()) and not is_ours:
        begun = ", begun with other options" if plan.is_file() else ""
        raise FileExistsError(f"{root} holds a data set already{begun}; choose another --root or delete it")
    write_json(plan, options)
    official = hand_model(mano_dir, "right", "freihand", "regressed")
    for subject in tqdm(range(1, num_subjects + 1), desc="humbi", unit="subject", disable=None):
        rig = _make_rig(np.random.default_rng(np.random.SeedSequence([seed, subject, _RIG_STREAM])), num_cameras)
        _write_cameras(hand_folder(root, subject), rig)
        for frame in range(num_frames):
            generator = np.random.default_rng(np.random.SeedSequence([seed, subject, frame]))
            hand = make_studio_hand(seed, subject, generator, mano_dir, components=COMPONENTS)
            folder = hand_folder(root, subject) / f"{10 * frame + 1:08d}"
            _write_reconstruction(folder / "reconstruction", hand, official)
            _write_crops(folder / "image_cropped" / "right", hand, rig, generator)
    write_json(root / "synthetic.json", {"options": options, "hand_model": official.assets.hash})
    plan.unlink()
    logger.info("wrote %d images to %s", num_subjects * num_frames * num_cameras, root)


def _make_rig(generator: np.random.Generator, count: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Camera id -> intrinsics (3, 3) and camera-to-table pose (4, 4): an arc on the side away from the body."""
    rig = {}
    for number, azimuth in enumerate(np.linspace(-110, 110, count + 2)[1:-1]):
        focal = generator.uniform(1600, 1800)
        centre = generator.normal((WIDTH / 2, HEIGHT / 2), 15)
        K = np.array([[focal, 0, centre[0]], [0, focal + generator.normal(0, 2), centre[1]], [0, 0, 1.0]])
        angles = np.radians([azimuth + generator.normal(0, 8), generator.uniform(-10, 50)])
        target = np.array([0.0, -0.05, 0.25]) + generator.normal(0, 0.03, 3)
        rig[_CAMERA_STEP * number] = K, look_at(angles, generator.uniform(1.3, 1.9), target)
    return rig


def _write_cameras(folder: Path, rig: dict[int, tuple[np.ndarray, np.ndarray]]) -> None:
    names = ("intrinsic", "extrinsic", "project")
    blocks = {name: [f"# {name} of the cameras", f"# {len(rig)} cameras", "#"] for name in names}
    for number, (K, pose) in rig.items():
        R, centre = pose[:3, :3].T, pose[:3, 3]
        matrices = K, np.vstack([centre, R]), K @ np.column_stack([R, -R @ centre])
        for name, matrix in zip(names, matrices, strict=True):
            blocks[name] += [f"camera {number}", *(_row(values) for values in matrix)]
    for name, lines in blocks.items():
        write_text(folder / f"{name}.txt", "\n".join(lines) + "\n")


def _write_reconstruction(folder: Path, hand: StudioHand, official: HandModel) -> None:
    """Keypoints, vertices and MANO numbers; the posture was made of the leading components, so nothing is lost."""
    pose = torch.as_tensor(hand.pose)[None]
    global_orient, coefficients = pose_to_pca(official.assets, pose)
    kept = pca_to_pose(official.assets, global_orient, coefficients[:, :COMPONENTS])
    if float((kept - pose).abs().max()) > 1e-6:
        raise RuntimeError(f"the posture needs more than {COMPONENTS} components")
    output = official(pose, torch.as_tensor(hand.betas)[None], torch.as_tensor(hand.transl)[None])
    numbers = np.concatenate([hand.transl, global_orient[0], coefficients[0, :COMPONENTS], hand.betas])
    tables = {"keypoints": output.joints[0].numpy(), "vertices": hand.vertices, "mano_params": numbers[:, None]}
    for name, rows in tables.items():
        write_text(folder / f"{name}_r.txt", "\n".join(_row(values) for values in rows) + "\n")


def _write_crops(
    folder: Path, hand: StudioHand, rig: dict[int, tuple[np.ndarray, np.ndarray]], generator: np.random.Generator
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (K, pose) in rig.items():
        pixels = project_numpy(hand.points_in_camera(hand.vertices, pose), K)
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        margin = (_BOX_SCALE - 1) / 2 * (high - low)
        (xmin, ymin), (xmax, ymax) = np.floor(low - margin).astype(int), np.ceil(high + margin).astype(int)
        crop = Crop(number, int(xmin), int(xmax), int(ymin), int(ymax))
        shot = hand.photograph(transform_intrinsics(K, crop_affine_of(crop)), pose, CROP)
        picture = hand.develop(shot, random_place(generator, CROP), generator)
        write_image(folder / image_name(number), picture, [])
        rows.append(" ".join(map(str, crop)))
    write_text(folder / "list.txt", "\n".join(rows) + "\n")


def _row(values: np.ndarray) -> str:
    return " ".join(f"{value:.10g}" for value in values)


def get_args_parser() -> argparse.ArgumentParser:
    parser = writer_parser("synthetic.humbi_writer", "Write a small synthetic data set in the layout of HUMBI's hands.")
    parser.add_argument("--num_subjects", type=int, default=4, help="people")
    parser.add_argument("--num_frames", type=int, default=2, help="frames a person")
    parser.add_argument("--num_cameras", type=int, default=3, help="views of a frame")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(get_args_parser(), lambda args: write_humbi(**values_of(args))))
