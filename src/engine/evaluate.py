"""Predictions against annotations: the numbers that are printed, and the JSON that keeps them."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np

from datasets import has_shards
from datasets.dex_ycb.files import check_official
from datasets.dex_ycb.splits import get_split
from datasets.protocol import SampleDataset
from options.run_options import RESULT_FILES, SERVERS
from src.engine import config
from src.engine.measure import camera_points, count_hands, format_scores, format_table, measure, official_hand
from src.engine.predict import predict
from src.engine.submit import official_scores, read_result_file, submit
from src.personalization.pairing import annotations_of, apart_from_calibration
from src.personalization.shape_source import load_identities
from src.personalization.terms.hand_size import describe_lengths, lengths_as_json
from template import load_hand_assets
from utils.artifacts import load_predictions
from utils.device import choose_device
from utils.files import writable_file, write_json

logger = logging.getLogger(__name__)

#: Splits of ``--submit`` whose labels the servers have.
OFFICIAL_SPLITS = {"dexycb": ("s0_test", "s1_test", "s2_test", "s3_test"), "freihand": ("evaluation", "s0_test")}


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """``run.py --phase eval``: from a checkpoint, a predictions file or an official result file.

    Writes ``--predictions`` (of a checkpoint), ``--results`` and the file of ``--submit`` if asked to. Samples without
    annotation (FreiHAND's evaluation part as first released) are predicted and submitted, but not measured.

    Raises:
        ValueError: a server or predictions of another data set, network, hand model or split; nothing to measure or to
            submit.
    """
    if args.submit and SERVERS[args.submit] != args.dataset:
        raise ValueError(f"--submit {args.submit} needs --dataset {SERVERS[args.submit]}, not {args.dataset}")
    if args.submit and has_shards(args.data_root):
        raise ValueError(f"--submit {args.submit} needs the data set itself, not shards of it: --data_root DIR")
    predicts = bool(args.checkpoint or args.resume) or not args.predictions
    if predicts:
        _check_official(args, args.split or f"{args.setup}_test")
    if args.results:
        writable_file(args.results, "--results", {"--predictions": args.predictions})  # before the work, not after it
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    if args.predictions and Path(args.predictions).suffix.lower() in RESULT_FILES:
        return _written(args, _evaluate_result_file(args))
    predictions = predict(args) if predicts else load_predictions(args.predictions)
    if predictions is None:  # under torchrun: the leading process has them all and measures
        return {}
    if predictions.pose is not None or predictions.vertices is not None:
        predictions.check_hand(assets)
    if predictions.dataset not in ("", args.dataset):
        raise ValueError(f"{predictions.source} is of {predictions.dataset}, not of --dataset {args.dataset}")
    if "--model" not in args.given_options:
        args.model = predictions.model_name or args.model  # which names the run's folder, and --submit's file in it
    elif not predicts and predictions.model_name not in ("", args.model, f"{args.model}_conf"):
        raise ValueError(f"{predictions.source} is of {predictions.model_name}, not of --model {args.model}")
    counts = count_hands(predictions.status)
    split = args.split or predictions.split or f"{args.setup}_test"
    if "--setup" in args.given_options and not args.split and split != f"{args.setup}_test":
        raise ValueError(f"{predictions.source} is of split {split}, not of --setup {args.setup}; leave that out")
    _check_official(args, split)
    dataset = _open_labels(args, split)
    summary: dict[str, Any] = {"split": split, "model": predictions.model_name, "n_images": len(predictions)}
    if counts:
        summary["status"] = counts
    if args.submit:
        if predictions.readable is not None:
            logger.warning("%d hands of the file are of pictures that could not be read", (~predictions.readable).sum())
        files = submit(args, predictions, dataset, assets)
        logger.info("written, read back and checked: %s", ", ".join(map(str, files)))
        summary["files"] = [str(path) for path in files]
    measured = predictions
    if args.identity is not None:
        identities = load_identities(args.identity, measured.subject_id, assets, measured.is_left)
        for number, identity in identities.items():
            logger.info("subject %d: %s", number, describe_lengths(identity, assets))
        summary["identities"] = lengths_as_json(identities, assets)
        apart = apart_from_calibration(measured, identities)
        logger.info("%d images that served the calibration are left out of the evaluation", int((~apart).sum()))
        if not apart.any():
            raise ValueError(
                "every image served to calibrate: nothing is left to measure. Calibrate from fewer (--num_images), or "
                "predict other images"
            )
        measured = measured.select(np.flatnonzero(apart))
    truth = annotations_of(dataset, measured)
    known = np.flatnonzero(truth["valid"] if measured.readable is None else truth["valid"] & measured.readable)
    if len(known):
        measured, truth = measured.select(known), {key: value[known] for key, value in truth.items()}
        means = measure(measured, truth, assets, device, left=dataset.assets.get("left"))
        summary |= means | {"n_images": len(measured)}
        words = "%s, %d images (mm, relative to the wrist; camera: absolute; px of the image)\n%s"
        logger.info(words, split, len(known), format_table({predictions.model_name: means}))
    if args.submit or not len(known):
        points = camera_points(predictions, official_hand(assets, args.dataset))
        scores = official_scores(args, points, predictions.image_id, predictions.is_left, dataset)
        logger.info("official scores: %s", format_scores(scores))
        summary["official"] = scores
        if scores is None and not args.submit:
            raise ValueError(
                f"{dataset.root}: split {split} is not annotated, so nothing can be measured; --submit writes the files"
            )
    return _written(args, summary)


def _written(args: argparse.Namespace, summary: dict[str, Any]) -> dict[str, Any]:
    if args.results:
        write_json(args.results, summary)
        logger.info("metrics written to %s", args.results)
    return summary


def _check_official(args: argparse.Namespace, split: str) -> None:
    known = OFFICIAL_SPLITS.get(args.submit, (split,))
    if split not in known:
        raise ValueError(f"--submit {args.submit}: the server knows {', '.join(known)}, not split {split}")
    if args.submit == "dexycb":
        check_official(Path(args.data_root), get_split(split))


def _open_labels(args: argparse.Namespace, split: str) -> SampleDataset:
    """The data set at a split, for its labels; no picture is read."""
    if has_shards(args.data_root):  # whose crops are what they are, and not looked at
        return config.open_dataset(args, split, None, **({"crop": None} | config.every_frame(args)))
    return config.open_dataset(args, split, args.crop_size or 128, labels_only=True, **config.every_frame(args))


def _evaluate_result_file(args: argparse.Namespace) -> dict[str, Any]:
    """Check an official result file as its server would, and score it where the labels are there."""
    if args.dataset == "dex_ycb":
        args.submit = "dexycb"  # the official split has both sides
    split = args.split or f"{args.setup}_test"
    if args.submit and not has_shards(args.data_root):
        check_official(Path(args.data_root), get_split(split))
    dataset = _open_labels(args, split)
    points, image_id, is_left = read_result_file(args, dataset)
    scores = official_scores(args, points, image_id, is_left, dataset)
    logger.info("%s: %d images, as the server takes them\n%s", args.predictions, len(image_id), format_scores(scores))
    return {"split": split, "file": args.predictions, "n_images": len(image_id), "official": scores}
