"""Our own networks for any picture at labelled hands of a set in FreiHAND's layout: keypoints in the true box, and the
hand fitted to them in space; a part of `world_agreement`.

* ``error_over_box``: mean distance of the keypoints from the labels over the side of the true box; ``right``: the share
  within a tenth of it.
* ``plain``, ``depth``, ``pose``: the hand fitted to the keypoints alone, with the network's relative depths, and with
  its pose as well; ``network``, ``told``: its pose as it is, of a hand of mean shape, and told the true one.
  Wrist-relative error after one scale (one camera does not see size), ``aligned_mm`` after the best similarity, and the
  share of palms that face elsewhere by more than 45 degrees.

Sides are told: hands of FreiHAND are right ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from datasets.freihand.files import image_name, read_annotations
from datasets.image_crop import crop_image
from options.image_options import OWN
from src.evaluation.alignment import procrustes_align
from src.personalization.fitting.fit import FitResult
from src.personalization.fitting.from_keypoints import fit_keypoints, turned_to_camera
from src.photos.api import load
from src.photos.detector.own_hands import in_space, mean_pose
from src.photos.detector.search import network_input, several_looks
from src.photos.image import read_photo
from template import HandModel
from template.kinematics import JointsModel, posed_points
from utils.camera import project_numpy, square_box


def measure_labelled(root: Path, most: int = 1000, version: int = 0) -> dict[str, object]:
    """Of the first ``most`` hands of a set; ``version``: which of its pictures of a hand."""
    estimate = load(OWN)
    fits, reader = estimate.estimator, estimate.detector.reader
    labels = read_annotations(root, "training")
    count, rows = len(labels["K"]), []
    for number in tqdm(range(min(most, count)), unit="hand", disable=None):
        image = read_photo(root / "training" / "rgb" / image_name(number + version * count)).image
        K, joints = labels["K"][number], labels["xyz"][number]
        box = square_box(project_numpy(joints, K), 1.0)
        first = reader.read(image, box[None], False)
        second = reader.read(image, square_box(first.keypoints[0], 1.0)[None], False)
        confidence = np.stack([first.confidence, second.confidence])
        keypoints = several_looks(np.stack([first.keypoints, second.keypoints]), confidence)
        (world,), (pose,) = in_space(keypoints, first, second), mean_pose(first, second)
        betas = labels["mano"][number, 48:58]
        window, size = box * [1, 1, reader.card.crop_scale], reader.card.input_size
        with torch.inference_mode():
            shape = torch.as_tensor(betas[None], dtype=torch.float32)
            told = reader.network(network_input([crop_image(image, window, size)], "cpu"), betas=shape)["pose"][0]
        rows.append((keypoints[0], K, confidence.mean(axis=(0, 1)), world, pose, told.numpy(), betas, joints, box[2]))
    keypoints, K, confidence, world, pose, told, betas, joints, side = map(np.stack, zip(*rows, strict=True))
    projected = np.stack([project_numpy(*one) for one in zip(joints, K, strict=True)])
    off = np.linalg.norm(keypoints - projected, axis=2) / side[:, None]
    seen = [torch.as_tensor(part, dtype=torch.float64) for part in (keypoints, K, confidence)]
    result: dict[str, object] = {
        "hands": len(rows),
        "error_over_box": float(off.mean()),
        "right": float((off < 0.1).mean()),
    }
    depths, poses = torch.as_tensor(world), torch.as_tensor(pose)
    for name, given, said in (("plain", None, None), ("depth", depths, None), ("pose", depths, poses)):
        fit = fit_keypoints(fits.assets, *seen, None, given, fits.options, pose=said)
        result[name] = in_metres(joints_of(fit, fits.joints_model), joints)
    layer = HandModel(fits.assets, dtype=torch.float64)
    for name, rotations, shape in (("network", pose, 0 * betas), ("told", told, betas)):
        turned = turned_to_camera(torch.as_tensor(rotations).double(), seen[1], seen[0])
        result[name] = in_metres(layer.joints(turned, torch.as_tensor(shape), None).numpy(), joints)
    return result


def joints_of(fit: FitResult, model: JointsModel) -> np.ndarray:
    """Joints (N,21,3) m of fitted hands, about each one's wrist at rest."""
    return posed_points(model, fit.pose, model.rest_points(fit.betas)).points[:, model.to_standard].numpy()


def palm(joints: np.ndarray) -> np.ndarray:
    """Unit normal (3,) of the palm of joints (21,3)."""
    normal = np.cross(joints[5] - joints[0], joints[17] - joints[0])
    return normal / np.linalg.norm(normal)


def in_metres(found: np.ndarray, joints: np.ndarray) -> dict[str, float]:
    """Errors of joints (N,21,3) m."""
    about, true = found - found[:, :1], joints - joints[:, :1]
    scale = (about * true).sum(axis=(1, 2)) / np.square(about).sum(axis=(1, 2))
    apart = scale[:, None, None] * about - true
    turned = [float(np.degrees(np.arccos(np.clip(palm(a) @ palm(b), -1, 1)))) for a, b in zip(about, true, strict=True)]
    aligned = procrustes_align(found, joints) - joints
    return {
        "wrist_relative_mm": 1000 * float(np.linalg.norm(apart, axis=2).mean()),
        "aligned_mm": 1000 * float(np.linalg.norm(aligned, axis=2).mean()),
        "palms_45_degrees_off": float(np.mean(np.array(turned) > 45)),
    }
