"""Eight cameras in an arc around a table, calibrated anew for each subject.

Frames: the *table frame* is that of the tag on the table (origin on the table, x to the subject's
right, y away from the subject, z up); the *world* is the master camera's frame, as in DexYCB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from datasets.dex_ycb.splits import SERIALS
from datasets.synthetic.scene.population import MASTER_SERIAL, RIG, random_numbers, subject_name

IMAGE_WIDTH, IMAGE_HEIGHT = 640, 480

# Azimuth (0 = across the table from the subject, positive towards the subject's right) and
# elevation above the table, degrees. The gap behind is where the subject sits.
_AZIMUTHS = (-128.0, -88.0, -52.0, -18.0, 16.0, 55.0, 92.0, 130.0)
_ELEVATIONS = (48.0, 27.0, 52.0, 33.0, 66.0, 29.0, 45.0, 36.0)
_LOOK_AT = np.array([0.0, -0.06, 0.13])  # between where the hand comes from and where it lifts to


@dataclass(frozen=True)
class Rig:
    """Calibration of one subject's recording; every transform is a (4, 4) float64 matrix, metres."""

    extrinsics_id: str
    K: dict[str, np.ndarray]  # serial -> (3, 3) pixels
    camera_to_table: dict[str, np.ndarray]

    @property
    def table_to_world(self) -> np.ndarray:
        """The tag's pose in the world (the master camera's frame)."""
        return np.linalg.inv(self.camera_to_table[MASTER_SERIAL])

    def camera_to_world(self, serial: str) -> np.ndarray:
        """Pose of a camera in the world; the identity for the master."""
        return self.table_to_world @ self.camera_to_table[serial]


def make_rig(seed: int, subject: int) -> Rig:
    """The cameras as calibrated for ``subject`` (1-based).

    Intrinsics and the rig's design are the data set's; each subject's calibration moves every
    camera by some millimetres and tenths of a degree, as re-mounting does.
    """
    shared, personal = (random_numbers(seed, number, RIG) for number in (0, subject))
    K, poses = {}, {}
    for serial, azimuth, elevation in zip(SERIALS, _AZIMUTHS, _ELEVATIONS, strict=True):
        focal = 615.0 + shared.normal(0.0, 3.0)
        centre = (shared.normal(319.5, 5.0), shared.normal(239.5, 5.0))
        K[serial] = np.array([[focal, 0, centre[0]], [0, focal + shared.normal(0, 0.7), centre[1]], [0, 0, 1.0]])
        angles = np.radians([azimuth + shared.normal(0, 5.0), elevation + shared.normal(0, 3.0)])
        pose = look_at(angles, shared.uniform(0.72, 0.95), _LOOK_AT + shared.normal(0, 0.015, 3))
        jitter = np.eye(4)
        jitter[:3, :3] = Rotation.from_rotvec(personal.normal(0, 0.008, 3)).as_matrix()
        jitter[:3, 3] = personal.normal(0, 0.006, 3)
        poses[serial] = pose @ jitter
    date = subject_name(subject)[:8]
    return Rig(f"{date}_08{subject % 60:02d}00", K, poses)


def look_at(angles: np.ndarray, distance: float, target: np.ndarray) -> np.ndarray:
    """Camera pose (4, 4) in the table frame that looks, upright, at ``target`` (3,) from ``distance`` metres.

    ``angles`` (2,), radians: azimuth (0 = from +y, towards +x) and elevation of the camera as seen from the target.
    """
    azimuth, elevation = angles
    outward = np.array([np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
    forward = -outward
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = target + distance * outward
    return pose
