"""Hands, options and results that tests of the photo demo share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from options.run_options import get_args_parser
from src.engine.checkpoint import ModelCard
from src.personalization.fitting.fit import FitOptions
from src.photos.detector.detection import Detection
from src.photos.estimator import HandInPicture
from src.photos.result import Result
from template import HandModel, axis_angle_to_pose, load_hand_assets
from template.kinematics import JointsModel
from utils.camera import project_numpy, square_box

DETECTIONS = Path(__file__).parents[2] / "shared" / "data" / "detections" / "mediapipe_real.json"
needs_detections = pytest.mark.skipif(not DETECTIONS.is_file(), reason=f"{DETECTIONS} is not there")
ASSETS = load_hand_assets("template/stand_in.npz")
K = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])


def arguments(*words: str) -> object:
    return get_args_parser().parse_args(["--phase", "demo", "--device", "cpu", *words])


def hand_at(depth: float, seed: int = 0) -> dict[str, np.ndarray]:
    """A true right hand before the camera."""
    generator = torch.Generator().manual_seed(seed)
    angles = torch.cat([torch.tensor([[0.4, -2.6, 0.3]]), 0.15 * torch.randn(1, 45, generator=generator)], dim=1)
    pose, betas = axis_angle_to_pose(angles.double()), 0.7 * torch.randn(1, 10, generator=generator).double()
    return posed(pose, betas, depth)


def posed(pose: torch.Tensor, betas: torch.Tensor, depth: float) -> dict[str, np.ndarray]:
    """A hand of pose (1,16,3,3) and betas (1,10), so many metres away."""
    transl = torch.tensor([[-0.05, 0.02, depth]]).double()
    output = HandModel(ASSETS, dtype=torch.float64)(pose, betas, transl)
    values = {"pose": pose, "betas": betas, "transl": transl, "vertices": output.vertices, "joints": output.joints}
    return {name: value[0].numpy() for name, value in values.items()}


def result_of(hand: dict[str, np.ndarray]) -> Result:
    keypoints = project_numpy(hand["joints"], K)
    return Result(
        640,
        K,
        square_box(keypoints, 1.0),
        keypoints,
        np.ones(21),
        hand["vertices"],
        hand["joints"],
        ASSETS,
        0.0,
        hand["pose"],
        hand["transl"],
        hand["betas"],
    )


def real_detections() -> list[tuple[str, Detection]]:
    """Surest hand of each real picture, and whose it is."""
    found = []
    for name, group in json.loads(DETECTIONS.read_text()).items():
        single = name in ("one_person_ten_poses", "one_left_hand_known_camera")
        for picture in group["pictures"]:
            for hand in picture["hands"][:1]:
                points, world = np.array(hand["keypoints_2d"]), np.array(hand["world_m"])
                seen = Detection(points, np.ones(21), hand["side"] == "left", hand["side_score"], world)
                found.append((name if single else f"{name} {picture.get('person') or picture['picture']}", seen))
    return found


class Fixed:
    """An estimator that sees the same hand everywhere, fails where a picture is ``broken`` and looks on."""

    card, assets = ModelCard("fixed"), ASSETS
    joints_model, frame_options = JointsModel(ASSETS, dtype=torch.float32), FitOptions()

    def __init__(self, look: object = None) -> None:
        self.look, self.calls = look, 0

    def estimate(self, seen: HandInPicture) -> Result:
        self.calls += 1
        if self.look is not None:
            self.look(self.calls)
        if seen.image[0, 0, 0] == 13:
            raise RuntimeError("a solver's own error")
        return result_of(hand_at(0.6))
