"""Results of simulated HaMeR-, WiLoR-, SAM-3D-Body- and MediaPipe-like estimators, in these estimators' own files.

The model of an estimator, each number of which is in `Claims`:

- It sees the person's 21 points with Gaussian noise, a fraction of the hand's box, and guesses the pose with errors of
  its own, a part of which it makes in every image of a person.
- It has its own shape of everybody: ``gain`` of the person's betas, an error common to all images of the person, and
  one of each image.
- It lays that hand on what it sees (`fit_frames`), so that depth and pose err where the picture says little, and its
  2D points are the projection of its 3D points by a made-up long focal length. MediaPipe-like: 2D points are the seen
  ones, 3D points have a further error and no size of their own.

``pa_mpjpe_mm`` is the published error (joints after similarity alignment) that the pose errors were set to reach;
tests/test_estimates.py measures it. HaMeR 6.0 mm and WiLoR 5.5 mm are FreiHAND's, of their papers; of SAM 3D
Body 5.5 mm (as WiLoR) and of MediaPipe 10 mm are assumptions. Nobody publishes ``gain``, the spread of betas, or what
images of a person share: these are assumptions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch

from benchmarks.scenes.simulation import Simulated, SimulationOptions, simulate
from src.estimators.records import place
from src.estimators.sam3d_body import LEFT, RIGHT
from src.personalization.fitting.fit import FitOptions, PosePriorOptions, fit_frames
from src.personalization.terms.noise import KeypointNoise
from template import HandAssets, HandModel
from template.kinematics import JointsModel

SIZE = (640, 480)
#: Where the simulated people hold their hands, m, and the real camera's focal length, px.
WORLD = SimulationOptions(noise_px=0.0, depth=(0.5, 0.9), uniform_depth=True, focal=450.0)
#: How many times the real focal length each estimator lays its hand on the picture with. Those that see a crop assume
#: a long lens (longer ones than this differ by less than a pixel); SAM 3D Body guesses a field of view.
LENS = {"hamer": 8.0, "wilor": 8.0, "sam3d_body": 1.3, "mediapipe": 8.0}


@dataclass(frozen=True)
class Claims:
    """Errors of a simulated estimator.

    Attributes:
        pa_mpjpe_mm: joints after similarity alignment.
        keypoint_std_box: of what is seen, 2D coordinates over the larger side of the box.
        root_std, finger_std: rad, of an axis of the guessed rotations before the picture corrects them.
        shared: part of that variance, and of the keypoints', which a person's images share.
        shape_gain, shape_shared_std, shape_std: see `src.personalization.estimates.trust.Trust`.
    """

    pa_mpjpe_mm: float
    keypoint_std_box: float
    root_std: float
    finger_std: float
    shared: float
    shape_gain: float
    shape_shared_std: float
    shape_std: float


CLAIMS = {
    "hamer": Claims(6.0, 0.02, 0.15, 0.23, 0.2, 0.35, 0.2, 0.35),
    "wilor": Claims(5.5, 0.018, 0.15, 0.21, 0.2, 0.4, 0.2, 0.3),
    "sam3d_body": Claims(5.5, 0.02, 0.18, 0.24, 0.2, 0.4, 0.2, 0.3),
    "mediapipe": Claims(10.0, 0.03, 0.15, 0.13, 0.2, 0.3, 0.25, 0.4),
}


@dataclass
class Estimated:
    """What an estimator says of P persons, F frames each (float64, right hands).

    Attributes:
        world: the truth. pose (P,F,16,3,3), betas (P,F,10); joints: (P,F,21,3) m about the wrist.
        keypoints: (P,F,21,2) px.
    """

    world: Simulated
    pose: torch.Tensor
    betas: torch.Tensor
    joints: torch.Tensor
    keypoints: torch.Tensor


def estimate(
    assets: HandAssets, name: str, persons: int, frames: int, seed: int, claims: Claims | None = None
) -> Estimated:
    """A simulated estimator's view of simulated people."""
    told = CLAIMS[name] if claims is None else claims
    world = simulate(assets, persons, frames, WORLD, seed)
    generator = torch.Generator().manual_seed(seed + 77)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def mixed(*tail: int) -> torch.Tensor:
        """Unit variance (P,F,*tail), of which a part is common to a person."""
        return told.shared**0.5 * normal(persons, 1, *tail) + (1 - told.shared) ** 0.5 * normal(persons, frames, *tail)

    std = torch.full((16, 1), told.finger_std, dtype=torch.float64)
    std[0] = told.root_std
    guess = world.pose @ roma.rotvec_to_rotmat(std * mixed(16, 3))
    betas = told.shape_gain * world.betas[:, None] + told.shape_shared_std * normal(persons, 1, 10)
    betas = betas + told.shape_std * normal(persons, frames, 10)
    box = (world.keypoints.amax(dim=2) - world.keypoints.amin(dim=2)).amax(dim=-1)[..., None, None]
    seen = world.keypoints + told.keypoint_std_box * box * mixed(21, 2)

    model = JointsModel(assets)
    options = FitOptions(PosePriorOptions(told.root_std, told.finger_std), KeypointNoise(std_box=told.keypoint_std_box))
    camera = world.K.clone()
    camera[..., :2, :2] *= LENS[name]
    flat = [value.flatten(0, 1) for value in (guess, betas, camera, seen)]
    found = fit_frames(model, *flat, options=options)
    posed = HandModel(assets, dtype=torch.float64).joints(
        found.pose, found.betas, torch.zeros(len(found.pose), 3).double()
    )
    joints = posed - posed[:, :1]
    if name == "mediapipe":  # everybody's hand has one size
        length = joints[:, [5, 9, 13, 17]].norm(dim=-1).mean(dim=1)
        joints = joints * (float(length.mean()) / length * (1 + 0.05 * normal(len(length))))[:, None, None]
        joints = joints + 0.006 * normal(*joints.shape)
        joints, pixels = joints - joints[:, :1], seen.flatten(0, 1)
    else:
        K, rows = made_up_camera(name), []
        for points, target in zip(joints.numpy(), seen.flatten(0, 1).numpy(), strict=True):
            image = (points + place(points, target, K)) @ K.T
            rows.append(image[:, :2] / image[:, 2:])
        pixels = torch.as_tensor(np.array(rows))
    split = (persons, frames)
    return Estimated(world, found.pose.unflatten(0, split), found.betas.unflatten(0, split), joints.unflatten(0, split),
                     pixels.unflatten(0, split))  # fmt: skip


def made_up_camera(name: str) -> np.ndarray:
    """K (3,3) px that the estimator writes its 2D points with."""
    focal = LENS[name] * WORLD.focal if name == "sam3d_body" else 5000 / 256 * max(SIZE)
    return np.array([[focal, 0, SIZE[0] / 2], [0, focal, SIZE[1] / 2], [0, 0, 1]])


def write_results(folder: Path, name: str, result: Estimated, person: int) -> Path:
    """A person's frames as a file or a folder of the estimator's own format; picture names are frame-NNN."""
    folder.mkdir(parents=True, exist_ok=True)
    joints, pixels = result.joints[person].numpy(), result.keypoints[person].numpy()
    count = len(joints)
    names = [f"frame-{row:03d}.jpg" for row in range(count)]
    if name == "mediapipe":
        for row, stem in enumerate(names):
            flat = [{"x": x / SIZE[0], "y": y / SIZE[1], "z": 0.0} for x, y in pixels[row].tolist()]
            points = [{"x": x, "y": y, "z": z} for x, y, z in joints[row].tolist()]
            content = {"hand_landmarks": [flat], "hand_world_landmarks": [points],
                       "handedness": [[{"category_name": "Right", "score": 0.99}]]}  # fmt: skip
            (folder / f"{Path(stem).stem}.json").write_text(json.dumps(content), encoding="utf-8")
        return folder
    K = made_up_camera(name)
    shift = np.array([place(a, b, K) for a, b in zip(joints, pixels, strict=True)])
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    if name == "sam3d_body":
        for row, stem in enumerate(names):
            body = np.tile(joints[row][:1], (70, 1))
            body[list(RIGHT)] = joints[row]
            body[list(LEFT)] = (joints[row] + shift[row]) * [-1, 1, 1] - shift[row]  # the other hand: the mirror image
            camera = (body + shift[row]) @ K.T
            box = np.concatenate([low[row], high[row]])
            other = np.array([2 * K[0, 2] - box[2], box[1], 2 * K[0, 2] - box[0], box[3]])
            np.savez(folder / f"{Path(stem).stem}.npz", pred_keypoints_3d=body, pred_cam_t=shift[row],
                     pred_keypoints_2d=camera[:, :2] / camera[:, 2:], focal_length=K[0, 0], rhand_bbox=box,
                     lhand_bbox=other, mhr_model_params=np.zeros(204))  # fmt: skip
        return folder
    centre, side = (low + high) / 2, 2 * (high - low).max(axis=1)
    scale = 2 * K[0, 0] / (shift[:, 2] * side)
    xy = shift[:, :2] - (2 * (centre - K[:2, 2]) / (side * scale)[:, None])
    cam = np.column_stack([scale, xy])
    pose, betas = result.pose[person], result.betas[person]
    content = {
        "pred_cam": torch.as_tensor(cam),
        "pred_cam_t": torch.as_tensor(np.column_stack([xy, 2 * 5000 / (256 * scale)])),
        "focal_length": torch.full((count, 2), 5000.0), "pred_keypoints_3d": torch.as_tensor(joints),
        "pred_mano_params": {"global_orient": pose[:, :1].clone(), "hand_pose": pose[:, 1:].clone(),
                             "betas": betas.clone()},
        "box_center": torch.as_tensor(centre), "box_size": torch.as_tensor(side),
        "img_size": torch.tensor([SIZE] * count).double(), "right": torch.ones(count), "image": names,
    }  # fmt: skip
    torch.save(content, folder / "results.pt")
    return folder / "results.pt"
