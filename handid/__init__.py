"""The identity layer for hands: calibrate a person's hand once, give it to every later estimate.

>>> estimate = handid.load()                                      # networks with their weights
>>> identity = handid.calibrate(results, hand_length_mm=183)      # many results -> one person's hand
>>> result = estimate(image, fov=60, identity=identity)           # metres, OpenCV camera frame
>>> result.save("hand.glb")

Every name is imported when it is first used, so that ``import handid`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets.synthetic.samples import write_photos
    from src.engine.estimates.api import PersonalisedHands, personalise
    from src.estimators import read_estimates, write_estimates
    from src.personalization.api import FittedHands, fit
    from src.personalization.calibration.online import OnlineCalibration
    from src.personalization.terms.hand_size import load_identity
    from src.photos.api import load
    from src.photos.calibrate import calibrate
    from src.photos.image import UnusableImage
    from src.photos.result import Result
    from template.assets import HandAssets, load_hand_assets
    from template.layer import HandModel
    from template.pose import axis_angle_to_pose, mirror_pose, pca_to_pose, pose_to_axis_angle, pose_to_pca
    from utils.identity import Identity, save_identity
    from utils.mesh_io import write_mesh

__version__ = "0.1.0"

__all__ = [
    "FittedHands",
    "HandAssets",
    "HandModel",
    "Identity",
    "OnlineCalibration",
    "PersonalisedHands",
    "Result",
    "UnusableImage",
    "axis_angle_to_pose",
    "calibrate",
    "fit",
    "load",
    "load_hand_assets",
    "load_identity",
    "mirror_pose",
    "pca_to_pose",
    "personalise",
    "pose_to_axis_angle",
    "pose_to_pca",
    "read_estimates",
    "save_identity",
    "write_estimates",
    "write_mesh",
    "write_photos",
]

#: Module -> the public names that it holds.
_NAMES = {
    "datasets.synthetic.samples": ("write_photos",),
    "src.engine.estimates.api": ("PersonalisedHands", "personalise"),
    "src.estimators": ("read_estimates", "write_estimates"),
    "src.personalization.calibration.online": ("OnlineCalibration",),
    "src.personalization.api": ("FittedHands", "fit"),
    "src.personalization.terms.hand_size": ("load_identity",),
    "src.photos.api": ("load",),
    "src.photos.calibrate": ("calibrate",),
    "src.photos.image": ("UnusableImage",),
    "src.photos.result": ("Result",),
    "template.assets": ("HandAssets", "load_hand_assets"),
    "template.layer": ("HandModel",),
    "template.pose": ("axis_angle_to_pose", "mirror_pose", "pca_to_pose", "pose_to_axis_angle", "pose_to_pca"),
    "utils.identity": ("Identity", "save_identity"),
    "utils.mesh_io": ("write_mesh",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"handid has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
