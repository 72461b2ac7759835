"""Synthetic HO-3D, evaluation part only, in the official layout (docs/facts.md 4), labels included. Small, for tests.

``python -m datasets.synthetic.ho3d_writer --root data/synthetic_ho3d --num_images 8``
"""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from datasets.ho3d import ENDINGS, HEIGHT, WIDTH
from datasets.synthetic.data_set import hand_model
from datasets.synthetic.dex_ycb_writer import write_image
from datasets.synthetic.hand_studio import Shot, make_studio_hand, random_place
from datasets.synthetic.scene.cameras import look_at
from options.command_line import run_command, values_of, writer_parser
from utils.camera import project_numpy
from utils.files import atomic_path, write_json, write_text
from utils.joints import STANDARD_TO_MANO

logger = logging.getLogger(__name__)

_SEQUENCE_LENGTH = 4
_OPENGL = np.array([1.0, -1.0, -1.0])
_BOX_MARGIN = 10  # px around the hand


def write_ho3d(
    root: str | Path, num_images: int = 8, version: str = "v2", seed: int = 0, mano_dir: str | None = None
) -> None:
    """Write a data set.

    Args:
        num_images: of the evaluation part, four to a sequence.
        version: "v2" (png) or "v3" (jpg).
        mano_dir: folder of the hand model, as in `template.load_hand_assets`.

    Raises:
        FileExistsError: if an HO-3D is there already.
        ValueError: if there is no image to write, or the version is unknown.
    """
    root = Path(root)
    if num_images < 1 or version not in ENDINGS:
        raise ValueError(f"num_images is {num_images}, version {version!r}; give at least 1, one of {list(ENDINGS)}")
    for name in ("evaluation.txt", "synthetic.json", "evaluation"):
        if (root / name).exists():
            raise FileExistsError(
                f"{root / name}: a data set, or part of one, is there already; choose another --root or delete it"
            )
    official = hand_model(mano_dir, "right", "ho3d")
    K = np.array([[614.0, 0, WIDTH / 2], [0, 614.0, HEIGHT / 2], [0, 0, 1.0]])
    names, xyz, verts = [], [], []
    for index in tqdm(range(num_images), desc="ho3d", unit="image", disable=None):
        generator = np.random.default_rng(np.random.SeedSequence([seed, index]))
        hand = make_studio_hand(seed, 1 + index // _SEQUENCE_LENGTH, generator, mano_dir)
        sequence, number = f"SYN{index // _SEQUENCE_LENGTH + 1}", f"{index % _SEQUENCE_LENGTH:04d}"
        angles = np.radians([generator.uniform(-120, 120), generator.uniform(0, 50)])
        camera = look_at(angles, generator.uniform(0.5, 0.8), hand.joints.mean(axis=0) + generator.normal(0, 0.03, 3))
        pose, transl = (torch.as_tensor(value)[None] for value in hand.in_camera(camera))
        output = official(pose, torch.as_tensor(hand.betas)[None], transl)
        joints, vertices = output.joints[0].numpy(), output.vertices[0].numpy()
        pixels = project_numpy(vertices, K)
        box = np.concatenate([pixels.min(axis=0) - _BOX_MARGIN, pixels.max(axis=0) + _BOX_MARGIN])
        # The studio's pictures are square: the image is the upper part of one as wide.
        shot = Shot(*(layer[:HEIGHT] for layer in hand.photograph(K, camera, WIDTH)))
        picture = hand.develop(shot, random_place(generator, WIDTH)[:HEIGHT], generator)
        folder = root / "evaluation" / sequence
        for part in ("rgb", "meta"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if version == "v3" else []
        write_image(folder / "rgb" / f"{number}.{ENDINGS[version]}", np.ascontiguousarray(picture), quality)
        meta = {"handJoints3D": joints[0] * _OPENGL, "handBoundingBox": box.round().astype(int).tolist(), "camMat": K}
        with atomic_path(folder / "meta" / f"{number}.pkl") as temporary:
            temporary.write_bytes(pickle.dumps(meta, protocol=2))
        names.append(f"{sequence}/{number}")
        xyz.append((joints[list(STANDARD_TO_MANO)] * _OPENGL).tolist())
        verts.append((vertices * _OPENGL).tolist())
    write_text(root / "evaluation_xyz.json", json.dumps(xyz, allow_nan=False))
    write_text(root / "evaluation_verts.json", json.dumps(verts, allow_nan=False))
    write_json(root / "synthetic.json", {
        "num_images": num_images, "version": version, "seed": seed, "hand_model": official.assets.hash,
    })  # fmt: skip
    write_text(root / "evaluation.txt", "\n".join(names) + "\n")
    logger.info("wrote %d images to %s", num_images, root)


def get_args_parser() -> argparse.ArgumentParser:
    parser = writer_parser(
        "synthetic.ho3d_writer",
        "Write a small synthetic data set in the layout of HO-3D's evaluation part.",
    )
    parser.add_argument("--num_images", type=int, default=8, help="images, four to a sequence")
    parser.add_argument("--version", default="v2", choices=tuple(ENDINGS), help="v2 has png images, v3 jpg")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(get_args_parser(), lambda args: write_ho3d(**values_of(args))))
