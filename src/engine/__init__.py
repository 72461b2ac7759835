"""How a network's run goes: training, prediction, evaluation, export. `PHASES` are the ones of ``run.py``."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def _train(args: argparse.Namespace) -> None:
    from src.engine.train import train

    train(args)


def _predict(args: argparse.Namespace) -> None:
    from src.engine.predict import predict

    predict(args)


def _evaluate(args: argparse.Namespace) -> None:
    from src.engine.evaluate import evaluate

    evaluate(args)


def _demo(args: argparse.Namespace) -> None:
    if args.video:
        from src.photos.run_video import video_demo

        video_demo(args)
    elif args.images:
        from src.photos.run_images import image_demo

        image_demo(args)
    else:
        from src.engine.demo.synthetic import demo

        demo(args)


def _export(args: argparse.Namespace) -> None:
    from src.engine.export import export

    export(args)


#: ``run.py --phase``: name -> function of the parsed options. Each imports what it needs when called.
PHASES: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": _train,
    "eval": _evaluate,
    "predict": _predict,
    "demo": _demo,
    "export": _export,
}
