"""How a network's run goes: training, prediction, evaluation, export. `PHASES` are the ones of ``run.py``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module


def _phase(module: str, name: str) -> Callable[[argparse.Namespace], object]:
    def work(args: argparse.Namespace) -> object:
        return getattr(import_module(module), name)(args)

    return work


_VIDEO = _phase("src.photos.video.run_video", "video_command")
_IMAGES = _phase("src.photos.run_images", "image_command")
_SYNTHETIC = _phase("src.engine.demo.synthetic", "demo")


#: ``run.py --phase``: name -> function of the parsed options. Each imports what it needs when called; an integer that
#: it returns is the exit status.
PHASES: dict[str, Callable[[argparse.Namespace], object]] = {
    "train": _phase("src.engine.train", "train"),
    "eval": _phase("src.engine.evaluate", "evaluate"),
    "predict": _phase("src.engine.predict", "predict"),
    "demo": lambda args: (_VIDEO if args.video else _IMAGES if args.images else _SYNTHETIC)(args),
    "export": _phase("src.engine.export", "export"),
    "personalise": _phase("src.engine.estimates.command", "personalise"),
}
