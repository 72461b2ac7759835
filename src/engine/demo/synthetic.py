"""The demo: two unseen people, calibrated from a few unlabelled images each, and what knowing them buys.

Everything it needs is in the repository or made on the spot. Results go to ``out/demo/``; the
data are synthetic, the people are those of the s1 test split, whom no network has seen.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datasets import build_dataset
from datasets.synthetic.data_set import SynthesisOptions, write_data_set
from src.engine.checkpoint import ModelCard, load_network
from src.engine.demo.pictures import write_pictures
from src.engine.demo.report import Variant, report, summarise
from src.engine.measure import evaluate_hands
from src.engine.networks import check_hand
from src.engine.predict import ShapeSource, predict_dataset
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.population import (
    SHIPPED_PRIOR,
    CalibrationOptions,
    calibration_options,
    load_population,
    with_population,
)
from src.personalization.fitting.batch import fit_predictions
from src.personalization.fitting.fit import FitOptions
from src.personalization.pairing import annotations_of, pair_keypoints
from template import HandAssets, HandModel, load_hand_assets
from template.assets import STAND_IN_PATH
from utils.artifacts import Predictions, save_identity, save_predictions
from utils.device import choose_device
from utils.files import write_json

logger = logging.getLogger(__name__)

SUBJECTS = (8, 9)
#: The first sequences of each subject serve the calibration, the others the evaluation.
CALIBRATION_SEQUENCES = 3


def demo(args: argparse.Namespace) -> dict[str, Any]:
    """``run.py --phase demo``: the whole personalisation on two unseen synthetic people.

    Raises:
        FileNotFoundError, ValueError: a weights file or a MANO file that is not what it should be.
    """
    if args.demo_sequences <= CALIBRATION_SEQUENCES:
        raise ValueError(
            f"--demo_sequences is {args.demo_sequences}; the first {CALIBRATION_SEQUENCES} of each subject serve the "
            f"calibration, so at least {CALIBRATION_SEQUENCES + 1} are needed"
        )
    seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def watch(stage: str) -> Iterator[None]:
        logger.info("%s ...", stage)
        started = time.perf_counter()
        yield
        seconds[stage] = round(time.perf_counter() - started, 2)

    device = choose_device(args.device, args.threads)
    output, weights = Path(args.output), Path(args.weights)
    given = read_hand(args.mano_dir)
    networks = {
        name: load_network(weights / f"{name}.safetensors", device)
        for name in ("mano_baseline_conf", "pose_2d", "mano_identity")
    }
    assets = demo_hand(given, networks["mano_baseline_conf"][1], weights / "mano_baseline_conf.safetensors")
    hand = HandModel(assets).to(device)

    with watch("write synthetic images"):
        root = output / "dex_ycb"
        options = SynthesisOptions(args.demo_sequences, args.demo_frames, seed=args.seed, left_fraction=0.0)
        write_data_set(root, options, SUBJECTS)
        dataset = build_dataset("dex_ycb", root, "s1_test", allow_missing_subjects=True)

    prior = weights / SHIPPED_PRIOR.name  # how far to trust network and keypoints, measured on the validation subject
    fit_options, believed = FitOptions(), CalibrationOptions(errors_repeat=True)
    if prior.is_file():
        population = load_population(prior, assets.hash)
        fit_options, believed = with_population(fit_options, population), calibration_options(population)

    def run(name: str, shape: ShapeSource | None = None) -> Predictions:
        model, card, digest = networks[name]
        check_hand(card, assets, weights / f"{name}.safetensors")
        return predict_dataset(model, card, dataset, device, shape, model_hash=digest, progress=False)

    with watch("predict"):
        baseline, keypoints = run("mano_baseline_conf"), run("pose_2d")
        baseline = pair_keypoints(baseline, keypoints)
    calibration_rows = np.zeros(len(baseline), dtype=bool)
    for subject in np.unique(baseline.subject_id):
        of_subject = baseline.subject_id == subject
        first = np.unique(baseline.sequence_id[of_subject])[:CALIBRATION_SEQUENCES]
        calibration_rows |= of_subject & np.isin(baseline.sequence_id, first)
    with watch("calibrate"):
        identities = calibrate_predictions(
            baseline.select(np.flatnonzero(calibration_rows)),
            assets,
            believed,
            method=args.method,
            num_images=args.calibration_images,
            seed=args.seed,
            device=device,
            created_by="run.py --phase demo",
        )
        for subject, identity in identities.items():
            save_identity(output / "identities" / f"identity_subject-{subject:02d}.json", identity)
    with watch("predict with the identity"):
        folder = output / "identities"
        shapes = {"gt": ShapeSource("gt"), "calibrated": ShapeSource("calibrated", folder, assets)}
        predictions = {"baseline": baseline} | {
            f"identity_{kind}": pair_keypoints(run("mano_identity", shape), keypoints) for kind, shape in shapes.items()
        }
    rows = np.flatnonzero(~calibration_rows)
    variants: dict[str, Variant] = {}
    with watch("fit and evaluate"):
        truth = annotations_of(dataset, baseline.select(rows))
        for name, prediction in predictions.items():
            network = prediction.select(rows)
            fitted = fit_predictions(
                network, network.betas, assets, solver=args.solver, options=fit_options, device=device
            ).predictions
            scores = (evaluate_hands(hand, one, truth) for one in (network, fitted))
            variants[name] = Variant(network, fitted, *scores)
            save_predictions(output / "predictions" / f"{name}.npz", fitted)
    results = summarise(variants, identities, dataset, hand, baseline)
    with watch("draw"):
        write_pictures(output, dataset, variants, identities, hand, truth, count=args.pictures)
    results["seconds"] = seconds
    write_json(output / "results.json", results)
    report(results, output)
    return results


def read_hand(mano_dir: str | None) -> HandAssets:
    """The right hand in use; with ``mano_dir`` its left file, if there is one, is read and checked too."""
    if mano_dir is not None and any(Path(mano_dir).glob("MANO_LEFT.*")):
        load_hand_assets(mano_dir, "left")
    return load_hand_assets(mano_dir, "right")


def demo_hand(given: HandAssets, card: ModelCard, path: Path) -> HandAssets:
    """The hand of the demo, which draws its own data: ``given``, or the stand-in if the network belongs to that.

    Raises:
        ValueError: the network of ``path`` belongs to neither.
    """
    stand_in = load_hand_assets(STAND_IN_PATH)
    if given.hash != card.hand_hash == stand_in.hash:
        words = (
            "%s belongs to the hand model %s (%s), which this demo draws and poses. %s (%s) was read and is whole; "
            "to use it, train with --mano_dir"
        )
        logger.warning(words, path, card.hand_name, card.hand_hash, given.name, given.hash)
        return stand_in
    check_hand(card, given, path)
    return given
