"""What ``--recipe`` stands for: default values of options that were not given on the command line.

``paper`` repeats the released code: its confounds are that the baseline updates its pose by adding
and the identity-aware network by multiplying, that the baseline starts from a slip of the
released code, and that the known shape reaches the hand layer only. ``fair`` (default) gives both
the same decoder, lets the pose head see the shape, and feeds both the crop's geometry.
"""

from __future__ import annotations

import argparse

_FAIR = {
    "backbone": "regnet_x_400mf",
    "input_size": 96,
    "crop_size": 128,
    "crop_scale": 1.5,
    "crop_geometry": "yes",
    "batch_size": 64,
    "epochs": 10,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "augment": "fair",
}

_PAPER = {
    "backbone": "resnet50",
    "input_size": 224,
    "crop_size": 224,
    "crop_scale": 2.0,
    "crop_geometry": "no",
    "batch_size": 32,
    "epochs": 15,
    "optimizer": "adam",
    "lr": 1e-4,
    "weight_decay": 0.0,
    "schedule": "multistep",
    "augment": "paper",
}

#: Epochs after which ``--schedule multistep`` divides the rate by ten (docs/facts.md 7.1, 7.4).
CMR = ("cmr_sg", "cmr_pg", "cmr_identity")
METRO = ("metro", "metro_identity")  # divides once, at half of the training
MILESTONES = {"pose_2d": (10, 15), **dict.fromkeys(CMR, (10, 12))}
DEFAULT_MILESTONES = (5, 10)

#: Deviations of single networks from their recipe.
_BY_MODEL = {
    **{("fair", name): {"backbone": "resnet18", "batch_size": 32, "lr": 5e-4} for name in CMR},
    **{("paper", name): {"backbone": "resnet18"} for name in CMR},
    **{("fair", name): {"batch_size": 32, "lr": 5e-4} for name in METRO},
    # a uniform turn of the standard deviation that METRO drew its normal ones with, 90 degrees
    **{("paper", name): {"rotation_deg": 156.0} for name in METRO},
    ("fair", "boukhayma"): {"backbone": "resnet34", "batch_size": 32, "lr": 5e-4},
    ("paper", "boukhayma"): {"backbone": "resnet34", "input_size": 256, "crop_size": 256},
    ("paper", "pose_2d"): {"backbone": "resnet18"},
    ("paper", "mano_baseline_conf"): {"batch_size": 128},
    ("fair", "mano_baseline_conf"): {"batch_size": 128, "epochs": 2},
}

#: FreiHAND's pictures are cut around the hand already: CMR networks see the whole image.
_WHOLE_IMAGE = {"crop": "image", "crop_scale": 2.0, "crop_size": 224}
_BY_DATASET = {
    **{("fair", name, "freihand"): {**_WHOLE_IMAGE, "input_size": 128} for name in (*CMR, *METRO)},
    **{("paper", name, "freihand"): _WHOLE_IMAGE for name in (*CMR, *METRO)},
}

RECIPES = {"fair": _FAIR, "paper": _PAPER}


def apply_recipe(args: argparse.Namespace) -> argparse.Namespace:
    """Fill the options that are None with the values of ``recipe`` for ``model`` and ``dataset``, in place."""
    values = RECIPES[args.recipe] | _BY_MODEL.get((args.recipe, args.model), {})
    values |= _BY_DATASET.get((args.recipe, args.model, getattr(args, "dataset", None)), {})
    for name, value in values.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    return args
