"""How a network's run goes: training, prediction, evaluation, export. `PHASES` are the ones of ``run.py``."""

from __future__ import annotations

import argparse
from importlib import import_module

#: ``run.py --phase``, a demo by what it shows: name -> module, which is imported when it is needed, and function.
PHASES = {
    "train": ("src.engine.train", "train"),
    "eval": ("src.engine.evaluate", "evaluate"),
    "predict": ("src.engine.predict", "predict"),
    "demo of a video": ("src.photos.video.run_video", "video_demo"),
    "demo of images": ("src.photos.run_images", "image_demo"),
    "demo": ("src.engine.demo.synthetic", "demo"),
    "export": ("src.engine.export", "export"),
    "personalise": ("src.engine.estimates.command", "personalise"),
}


def run_phase(args: argparse.Namespace) -> None:
    """Do what ``--phase`` says."""
    phase = args.phase
    if phase == "demo":
        phase += " of a video" if args.video else " of images" if args.images else ""
    module, name = PHASES[phase]
    getattr(import_module(module), name)(args)
