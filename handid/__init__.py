"""The identity layer for hands: calibrate a person's hand once, give it to every later estimate.

>>> estimate = handid.load("mano_identity")                       # a network, with its weights
>>> identity = handid.calibrate(results, hand_length_mm=183)      # many results or photos -> one person's hand
>>> result = estimate(image, fov=60, identity=identity)           # metres, OpenCV camera frame
>>> result.save("hand.glb")

Every name is imported when it is first used, so that ``import handid`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.personalization.calibration.api import calibrate
    from src.personalization.fitting.api import FitResult, fit
    from src.photos.api import load
    from template import HandModel, load_hand_assets
    from utils.identity import Identity, load_identity, save_identity

__version__ = "0.1.0"

#: Public name -> the module that holds it.
_MODULES = {
    "load": "src.photos.api",
    "calibrate": "src.personalization.calibration.api",
    "fit": "src.personalization.fitting.api",
    "FitResult": "src.personalization.fitting.api",
    "HandModel": "template.layer",
    "load_hand_assets": "template.assets",
    "Identity": "utils.identity",
    "load_identity": "utils.identity",
    "save_identity": "utils.identity",
}

__all__ = [
    "FitResult",
    "HandModel",
    "Identity",
    "calibrate",
    "fit",
    "load",
    "load_hand_assets",
    "load_identity",
    "save_identity",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"handid has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
