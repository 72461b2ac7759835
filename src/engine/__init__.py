"""How a network's run goes: training, prediction, evaluation, export. `PHASES` are the ones of ``run.py``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module


def _phase(module: str, name: str) -> Callable[[argparse.Namespace], None]:
    def work(args: argparse.Namespace) -> None:
        getattr(import_module(module), name)(args)

    return work


_VIDEO = _phase("src.photos.video.run_video", "video_demo")
_IMAGES = _phase("src.photos.run_images", "image_demo")
_SYNTHETIC = _phase("src.engine.demo.synthetic", "demo")


#: ``run.py --phase``: name -> function of the parsed options. Each imports what it needs when called.
PHASES: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": _phase("src.engine.train", "train"),
    "eval": _phase("src.engine.evaluate", "evaluate"),
    "predict": _phase("src.engine.predict", "predict"),
    "demo": lambda args: (_VIDEO if args.video else _IMAGES if args.images else _SYNTHETIC)(args),
    "export": _phase("src.engine.export", "export"),
    "personalise": _phase("src.engine.estimates.command", "personalise"),
}
