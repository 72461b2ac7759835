"""Calibration when something is missing, wrong or counted twice: refused with a reason, or honest about it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from test_calibration import KNOWN

from benchmarks.scenes.calibration_cases import standardised
from benchmarks.scenes.simulation import Simulated, SimulationOptions, simulate
from options.calibrate import get_args_parser
from options.fit import get_args_parser as fit_parser
from src.personalization import default_files
from src.personalization.calibration import command, multi_frame, population
from src.personalization.calibration.command import calibrate_and_write
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.images import Images
from src.personalization.calibration.merging import merge_identities
from src.personalization.calibration.multi_frame import calibrate_frames
from src.personalization.calibration.population import (
    SHIPPED_PRIOR,
    CalibrationOptions,
    NetworkShape,
    Population,
    calibration_options,
    default_options,
    load_population,
    save_population,
)
from src.personalization.fitting.command import fit
from src.personalization.fitting.fit import PosePriorOptions
from src.personalization.solver.levenberg_marquardt import LMOptions
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import LengthCue, dispersed, length_gradient, lengths_mm
from src.personalization.terms.noise import KeypointNoise
from template import HandAssets
from template.kinematics import JointsModel
from utils.artifacts import (
    ArtifactError,
    Identity,
    Predictions,
    load_identity,
    load_predictions,
    save_identity,
    save_predictions,
)

SHIPPED_NETWORK = "mano_baseline_conf"
WORLD = SimulationOptions(1.0, 0, 0.1, (0.85, 0.05))


def rows_of(world: Simulated, assets: HandAssets, **changes: object) -> Predictions:
    """Predictions of simulated people, subjects 8, 9, ..., with betas 0.5 off at random."""
    betas = world.betas.numpy().repeat(world.predicted.shape[1], axis=0)
    given = {
        "betas": betas + 0.5 * np.random.default_rng(0).normal(size=betas.shape),
        "keypoint_confidence": np.ones((len(betas), 21)),
        "dataset": "dex_ycb",
        "split": "s1_test",
        "model_name": SHIPPED_NETWORK,
    }
    return world.predictions(assets, **(given | changes))


def in_parts(
    world: Simulated, assets: HandAssets, options: CalibrationOptions
) -> tuple[Predictions, list[Identity], Identity, Identity]:
    """Rows of a person's images, the identities of each four of them, of all at once, and of the former merged."""
    rows = rows_of(world, assets)
    parts = [
        calibrate_predictions(rows.select(np.arange(4) + start), assets, options)[8] for start in range(0, len(rows), 4)
    ]
    whole = calibrate_predictions(rows, assets, options)[8]
    return rows, parts, whole, merge_identities(parts, assets, options.population)


def arguments(folder: Path, *more: str) -> object:
    words = ["--predictions", str(folder / "p.npz"), "--output", str(folder / "out"), "--device", "cpu"]
    return get_args_parser().parse_args([*words, "--num_images", "4", *more])


# What is believed where nobody says anything.


def test_the_shipped_prior_is_the_default(assets: HandAssets, tmp_path: Path) -> None:
    rows = rows_of(simulate(assets, 1, 4, WORLD), assets)
    save_predictions(tmp_path / "p.npz", rows)
    plain = command.run(arguments(tmp_path))[8]
    named = command.run(arguments(tmp_path, "--prior", str(SHIPPED_PRIOR)))[8]
    np.testing.assert_array_equal(plain.betas, named.betas)
    np.testing.assert_array_equal(plain.covariance, named.covariance)
    assert plain.scale_evidence == "prior + network"
    joint = command.run(arguments(tmp_path, "--method", "joint"))[8]
    np.testing.assert_array_equal(joint.betas, plain.betas)
    assert joint.method == plain.method == "multi_frame"


@pytest.mark.parametrize("what", ["hand", "missing", "truncated"])
def test_without_a_prior_it_is_said(
    assets: HandAssets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    path = tmp_path / "prior.npz"
    if what == "hand":
        save_population(path, replace(load_population(SHIPPED_PRIOR, assets.hash), hand_hash="another"))
    elif what == "truncated":
        path.write_bytes(SHIPPED_PRIOR.read_bytes()[:-300])
    monkeypatch.setattr(population.shipped_population, "__defaults__", (path,))
    with caplog.at_level(logging.WARNING):
        options = default_options(assets, SHIPPED_NETWORK, "dex_ycb")
    assert options.errors_repeat and "no shipped prior" in caplog.text and "--prior" in caplog.text
    np.testing.assert_array_equal(options.population.betas_covariance, np.eye(10))


def test_of_another_network_or_data_set_the_prior_knows_less(assets: HandAssets) -> None:
    own = default_options(assets, SHIPPED_NETWORK, "dex_ycb")
    assert own.depth_mean is not None and own.population.network is not None and not own.errors_repeat
    elsewhere = default_options(assets, SHIPPED_NETWORK, "freihand")
    assert elsewhere.depth_mean is None and elsewhere.population.network is not None
    other = default_options(assets, "somebody's", "dex_ycb")
    assert other.errors_repeat and other.population.network is None and other.prior.covariance is None
    np.testing.assert_array_equal(other.population.betas_covariance, own.population.betas_covariance)


def repeated_errors(assets: HandAssets, persons: int, frames: int, seed: int) -> Simulated:
    """A network and keypoints that err in the same way in all images of a person, besides noise."""
    world = simulate(assets, persons, frames, SimulationOptions(1.0, 0, 0.08), seed)
    generator = torch.Generator().manual_seed(seed + 1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    box = (world.keypoints.amax(2) - world.keypoints.amin(2)).amax(-1)[..., None, None]
    turn = roma.rotvec_to_rotmat(0.25 * normal(persons, 1, 16, 3))
    keypoints = world.keypoints + 0.04 * box * normal(persons, 1, 21, 2)
    return replace(world, predicted=world.predicted @ turn, keypoints=keypoints)


def test_intervals_hold_where_nothing_was_measured(assets: HandAssets) -> None:
    """95% intervals of hand length and betas of 24 people whose network errs in the same way in 8 images each."""
    world, model = repeated_errors(assets, 24, 8, 3), JointsModel(assets)
    held = {}
    for repeat in (True, False):
        options = CalibrationOptions(errors_repeat=repeat, lm=LMOptions(max_steps=25))
        found = calibrate_frames(model, world.predicted, torch.zeros(24, 10), world.K, world.keypoints, options=options)
        z = standardised(model, found.betas, found.covariance, world.betas)
        held[repeat] = [float((np.abs(z[name]) < 1.96).mean()) for name in ("hand length", "betas")]
    assert min(held[True]) > 0.93, held
    assert min(held[False]) < 0.9, held  # there is something to widen


def test_a_noise_that_the_user_states_is_believed(assets: HandAssets, tmp_path: Path) -> None:
    save_predictions(tmp_path / "p.npz", rows_of(simulate(assets, 1, 4, WORLD), assets, model_name="x"))
    stated = ("--keypoint_std", "1", "--finger_std", "0.1", "--root_std", "0.1")

    def options_of(*words: str, population: Population | None = None) -> CalibrationOptions:
        known = default_options(assets, "x", "dex_ycb", population, errors_known=True)
        return command.stated_options(arguments(tmp_path, *words), known)

    options = options_of(*stated)
    assert (options.prior.root_std, options.prior.finger_std, options.noise.std_px) == (0.1, 0.1, 1.0)
    assert options.prior.covariance is None and not options.errors_repeat
    named = options_of(*stated, population=load_population(SHIPPED_PRIOR, assets.hash))
    assert named.prior.covariance is None and named.population.network is not None


# What several files of one person share.


def network_of(gain: float, systematic: float, noise: float) -> NetworkShape:
    return NetworkShape(gain * np.eye(10), np.full(10, 0.1), systematic**2 * np.eye(10), noise**2 * np.eye(10))


def population_with(network: NetworkShape) -> Population:
    return Population(**{f"network_{name}": value for name, value in vars(network).items()})


@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_an_error_that_the_network_makes_every_time_counts_once(assets: HandAssets, correlation: float) -> None:
    """Three files of a few images each against all images at once; the systematic error is most of the network's."""
    world = simulate(assets, 1, 12, replace(WORLD, pose_noise=0.3, noise_px=6.0), seed=4)
    options = replace(
        KNOWN,
        prior=PosePriorOptions(0.3, 0.3),
        noise=KeypointNoise(std_px=6.0, loss="none"),
        population=population_with(network_of(1.0, 0.4, 0.2)),
        interval_correlation=correlation,
    )
    rows, parts, whole, merged = in_parts(world, assets, options)
    scale = np.sqrt(np.diag(whole.covariance))
    np.testing.assert_allclose(np.sqrt(np.diag(merged.covariance)) / scale, 1, atol=0.04)
    assert np.abs((merged.betas - whole.betas) / scale).max() < 0.5
    assert merged.evidence["network"]["images"] == 12 and merged.n_images == 12
    np.testing.assert_allclose(merged.evidence["network"]["betas"], rows.betas.mean(axis=0), atol=1e-5)
    again = merge_identities(
        [merge_identities(parts[:2], assets, options.population), parts[2]], assets, options.population
    )
    np.testing.assert_allclose(again.betas, merged.betas, atol=1e-4)
    np.testing.assert_allclose(again.covariance, merged.covariance, atol=1e-5)


def test_intervals_are_of_images_that_share_errors() -> None:
    """The mean of n observations that are correlated and taken for independent: its error in closed form."""
    random, n, share = np.random.default_rng(0), 12, 0.2
    axes = np.linalg.qr(random.normal(size=(10, 10)))[0]
    known, images = random.uniform(0.5, 2, 10), n * random.uniform(0.1, 5, 10)  # precisions
    error = (known + (1 + (n - 1) * share) * images) / (known + images) ** 2  # of the prior's pull, and of the noise
    found = dispersed(axes / (known + images) @ axes.T, axes * known @ axes.T, n, share)
    np.testing.assert_allclose(found, axes * error @ axes.T, rtol=1e-10, atol=1e-12)
    alone = dispersed(axes / (known + images) @ axes.T, axes * known @ axes.T, 0.5, share)
    np.testing.assert_allclose(alone, axes / (known + images) @ axes.T)


def test_what_networks_say_has_wider_intervals_at_the_same_place(assets: HandAssets) -> None:
    people = population_with(network_of(0.5, 0.2, 0.2))
    assert (
        calibration_options(Population()).interval_correlation == 0 < calibration_options(people).interval_correlation
    )
    rows, spreads = rows_of(simulate(assets, 1, 8, WORLD), assets), {}
    for count in (1, 8):
        plain, wide = (
            calibrate_predictions(
                rows.select(np.arange(count)), assets, replace(KNOWN, population=people, interval_correlation=part)
            )[8]
            for part in (0.0, 0.3)
        )
        np.testing.assert_array_equal(plain.betas, wide.betas)
        spreads[count] = np.diag(wide.covariance) / np.diag(plain.covariance)
        np.testing.assert_array_equal(wide.evidence["intervals"]["solved"], plain.covariance)
    np.testing.assert_allclose(spreads[1], 1)
    assert (spreads[8] > 1).all() and spreads[8].max() > 1.5


def test_a_ruler_in_two_files_was_read_once(assets: HandAssets) -> None:
    world = simulate(assets, 1, 8, WORLD, seed=5)
    truth = float(length_gradient(JointsModel(assets), world.betas, "hand")[0][0])
    options = replace(KNOWN, depth_mean=None, cues=(LengthCue("hand", truth, 0.003),))
    rows, parts, whole, merged = in_parts(world, assets, options)
    assert 0.9 < merged.hand_length_std_mm / whole.hand_length_std_mm < 1.1
    other = calibrate_predictions(
        rows.select(np.arange(4, 8)), assets, replace(options, cues=(LengthCue("hand", truth + 0.001, 0.003),))
    )[8]
    twice = merge_identities([parts[0], other], assets, options.population)  # another measurement counts
    assert twice.hand_length_std_mm < 0.8 * whole.hand_length_std_mm


def test_errors_that_repeat_do_so_in_the_next_file(assets: HandAssets) -> None:
    options, world = CalibrationOptions(errors_repeat=True), simulate(assets, 1, 8, WORLD, seed=6)
    *_, whole, merged = in_parts(world, assets, options)
    np.testing.assert_allclose(np.sqrt(np.diag(merged.covariance)), np.sqrt(np.diag(whole.covariance)), rtol=0.05)


def test_evidence_survives_the_file(assets: HandAssets, tmp_path: Path) -> None:
    options = replace(
        KNOWN, population=population_with(network_of(0.5, 0.2, 0.2)), cues=(LengthCue("hand", 0.19, 0.01),)
    )
    found = calibrate_predictions(rows_of(simulate(assets, 1, 4, WORLD), assets), assets, options)[8]
    found.save(tmp_path / "me.json")
    read = load_identity(tmp_path / "me.json")
    assert read.evidence == found.evidence and set(read.evidence) == {
        "prior",
        "errors_repeat",
        "repeats",
        "network",
        "cues",
    }
    assert read.length_mm == pytest.approx(found.hand_length_mm, abs=1e-3)
    assert (tmp_path / "me.json").stat().st_mode & 0o077 == 0  # a person's biometric data
    low, high = read.interval_mm
    assert high - low == pytest.approx(2 * 1.959964 * found.hand_length_std_mm, abs=0.01)


def test_files_that_do_not_say_what_they_share(assets: HandAssets) -> None:
    options = replace(KNOWN, population=population_with(network_of(0.5, 0.2, 0.2)))
    rows = rows_of(simulate(assets, 1, 8, WORLD), assets)
    parts = [calibrate_predictions(rows.select(np.arange(4) + start), assets, options)[8] for start in (0, 4)]
    with pytest.raises(CalibrationError, match="made with another prior"):
        merge_identities([replace(parts[0], evidence={}), parts[1]], assets, options.population)
    with pytest.raises(CalibrationError, match="made with another prior"):
        merge_identities(parts, assets, Population())
    solved = {"solved": (-np.eye(10)).tolist(), "images": 4, "correlation": 0.1}
    network = {"network": {"images": 0, "betas": [0.0] * 10}}
    for odd in (network, {"network": 3}, {"cues": [["toe", 1, 1]]}, {"intervals": solved}, {"intervals": {}}):
        with pytest.raises(CalibrationError, match="its evidence is not what calibration writes"):
            merge_identities(
                [replace(parts[0], evidence=parts[0].evidence | odd), parts[1]], assets, options.population
            )
    with pytest.raises(ArtifactError, match="evidence"):
        replace(parts[0], evidence=[1])


def test_two_peoples_files_are_not_merged(assets: HandAssets, caplog: pytest.LogCaptureFixture) -> None:
    """Own photos name nobody: everybody is subject 1. Their shapes tell them apart."""
    world = simulate(assets, 4, 14, WORLD, seed=11)
    rows = rows_of(world, assets, subject_id=np.repeat(np.arange(4), 14))
    found = calibrate_predictions(rows, assets, KNOWN)
    people = [replace(identity, subject_id=1) for identity in found.values()]
    refused = 0
    for other in people[1:]:
        caplog.clear()
        try:
            merge_identities([people[0], other], assets, KNOWN.population)
        except CalibrationError as error:
            assert "do not look like one person's hand" in str(error)
            refused += 1
        else:
            assert "do not look like one person's hand" in caplog.text
    assert refused
    one = rows.select(np.arange(14))
    halves = [calibrate_predictions(one.select(np.arange(7) + start), assets, KNOWN)[0] for start in (0, 7)]
    caplog.clear()
    merge_identities(halves, assets, KNOWN.population)
    assert "look like" not in caplog.text
    accepted = merge_identities(people[:2], assets, KNOWN.population, accept_conflict=True)
    assert accepted.n_images == 28


def test_one_persons_files_are_rarely_doubted(assets: HandAssets, caplog: pytest.LogCaptureFixture) -> None:
    world = simulate(assets, 12, 6, WORLD, seed=12)
    rows = rows_of(world, assets)
    parts = [calibrate_predictions(rows.select(np.arange(72) % 6 // 3 == half), assets, KNOWN) for half in (0, 1)]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for number in parts[0]:
            merge_identities([parts[0][number], parts[1][number]], assets, KNOWN.population)
    assert caplog.text.count("do not look like") <= 2


# Images that are too few, copies, or of no use.


def test_one_image_is_enough_but_says_little(assets: HandAssets) -> None:
    rows = rows_of(simulate(assets, 1, 1, WORLD), assets)
    found = calibrate_predictions(rows, assets, KNOWN)[8]
    many = calibrate_predictions(rows_of(simulate(assets, 1, 8, WORLD), assets), assets, KNOWN)[8]
    assert found.n_images == 1 and np.isfinite(found.covariance).all()
    assert found.hand_length_std_mm > many.hand_length_std_mm
    assert calibrate_predictions(rows, assets, method="mean")[8].covariance is None


def test_no_image_at_all(assets: HandAssets) -> None:
    rows = rows_of(simulate(assets, 1, 1, WORLD), assets).select(np.zeros(1, dtype=bool))
    for method in ("mean", "multi_frame"):
        with pytest.raises(CalibrationError, match="is empty"):
            calibrate_predictions(rows, assets, KNOWN, method=method)


def test_no_usable_image(assets: HandAssets) -> None:
    world = simulate(assets, 1, 3, WORLD)
    for spoiled in (
        {"keypoints_2d": np.full((3, 21, 2), 50.0)},
        {"keypoint_confidence": np.zeros((3, 21))},
        {"K": np.zeros((3, 3, 3))},
    ):
        with pytest.raises(CalibrationError, match="subject 8: no usable frame among 3"):
            calibrate_predictions(rows_of(world, assets, **spoiled), assets, KNOWN)
    with pytest.raises(ArtifactError, match="pose of image 0 is not made of rotation matrices"):
        rows_of(world, assets, pose=np.zeros((3, 16, 3, 3)))


def test_a_number_that_is_none_names_file_and_array(assets: HandAssets, tmp_path: Path) -> None:
    rows = rows_of(simulate(assets, 1, 3, WORLD), assets)
    save_predictions(tmp_path / "p.npz", rows)
    with np.load(tmp_path / "p.npz") as archive:
        content = dict(archive)
    content["betas"][1, 2] = np.nan
    np.savez(tmp_path / "p.npz", **content)
    with pytest.raises(ArtifactError, match=r"p\.npz: betas\[1, 2\] is nan"):
        command.run(arguments(tmp_path))


def test_a_copy_of_an_image_does_not_count_again(assets: HandAssets, caplog: pytest.LogCaptureFixture) -> None:
    rows = rows_of(simulate(assets, 1, 4, WORLD), assets)
    order = np.array([0, 1, 2, 3, 2, 2])  # the same pictures under other numbers
    arrays = {name: value[order] for name, value in vars(rows).items() if isinstance(value, np.ndarray)}
    repeated = replace(rows, **arrays | {"image_id": np.arange(6)})
    with caplog.at_level(logging.WARNING):
        found = calibrate_predictions(repeated, assets, KNOWN)[8]
    assert "2 images are copies" in caplog.text
    once = calibrate_predictions(rows, assets, KNOWN)[8]
    assert found.n_images == 4
    np.testing.assert_allclose(found.covariance, once.covariance, atol=1e-9)
    mean = calibrate_predictions(repeated, assets, method="mean")[8]
    np.testing.assert_allclose(mean.betas, rows.betas.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("factor", [8.0, 0.05])
def test_K_of_another_picture_size(assets: HandAssets, caplog: pytest.LogCaptureFixture, factor: float) -> None:
    rows = rows_of(simulate(assets, 1, 6, WORLD), assets)
    K = rows.K.copy()
    K[:, :2] *= factor
    with pytest.raises(CalibrationError, match=r"in 6 of 6 images .* give the K, in pixels, of the images"):
        calibrate_predictions(replace(rows, K=K), assets, KNOWN)
    K[2:] = rows.K[2:]  # of two pictures only
    with caplog.at_level(logging.WARNING):
        found = calibrate_predictions(replace(rows, K=K), assets, KNOWN)[8]
    assert found.image_ids == [2, 3, 4, 5] and "left out: {'converged': 4, 'behind_camera': 2}" in caplog.text


def test_betas_that_a_network_was_told_are_no_evidence(assets: HandAssets) -> None:
    """mano_identity hands through the betas that it is given."""
    rows = rows_of(simulate(assets, 1, 4, WORLD), assets, model_name="mano_identity")
    with pytest.raises(CalibrationError, match="found by itself"):
        calibrate_predictions(rows, assets, method="mean")
    options = replace(KNOWN, population=population_with(network_of(1.0, 0.1, 0.1)))
    told = calibrate_predictions(replace(rows, betas=np.full((4, 10), 3.0)), assets, options)[8]
    assert "network" not in told.evidence and np.abs(told.betas).max() < 3
    assert told.scale_evidence == "prior"


# Lengths.


@pytest.mark.parametrize(
    ("mm", "words"),
    [(18000.0, "no length of a hand"), (0.183, "no length of a hand"), (18.3, "no length of a hand"), (183.0, "")],
)
def test_lengths_in_other_units(assets: HandAssets, tmp_path: Path, mm: float, words: str) -> None:
    save_predictions(tmp_path / "p.npz", rows_of(simulate(assets, 1, 4, WORLD), assets))
    args = arguments(tmp_path, "--hand_length_mm", str(mm), "--accept_conflict")
    if words:
        with pytest.raises(CalibrationError, match=words):
            command.run(args)
    else:
        assert command.run(args)[8].scale_evidence == "ruler"


def test_two_lengths_that_contradict_each_other(assets: HandAssets) -> None:
    world = simulate(assets, 1, 4, WORLD)
    truth = float(length_gradient(JointsModel(assets), world.betas, "hand")[0][0])
    cues = (LengthCue("hand", truth, 0.002), LengthCue("hand", truth - 0.02, 0.002))
    options = replace(KNOWN, depth_mean=None, cues=cues)
    with pytest.raises(
        CalibrationError, match="the images, the other lengths and the prior say .* standard deviations apart"
    ):
        calibrate_predictions(rows_of(world, assets), assets, options)


# What is done is kept.


def test_identities_already_written_are_kept(
    assets: HandAssets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(simulate(assets, 3, 4, WORLD), assets)
    save_predictions(tmp_path / "p.npz", rows)
    real = command.calibrate_person

    def interrupted(own: object, subject: int, *given: object, **more: object) -> Identity:
        if subject == 10:
            raise KeyboardInterrupt
        return real(own, subject, *given, **more)

    monkeypatch.setattr(command, "calibrate_person", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stated = ("--keypoint_std", "1", "--finger_std", "0.1", "--root_std", "0.1")
        command.run(arguments(tmp_path, "--depth_mean", "0.85", "--depth_std", "0.05", *stated))
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["identity_subject-08.json", "identity_subject-09.json"]
    assert load_identity(tmp_path / "out" / written[0]).subject_id == 8


def test_one_subject_that_fails_does_not_lose_the_others(assets: HandAssets, tmp_path: Path) -> None:
    rows = rows_of(simulate(assets, 3, 4, WORLD), assets)
    confidence = np.ones((12, 21))
    confidence[4:8] = 0
    save_predictions(tmp_path / "p.npz", replace(rows, keypoint_confidence=confidence))
    with pytest.raises(CalibrationError, match=r"1 of 3 subjects could not be calibrated \(\[9\].*no usable frame"):
        command.run(arguments(tmp_path))
    assert len(list((tmp_path / "out").glob("*.json"))) == 2


def test_without_options_the_scripts_files_are_used(
    assets: HandAssets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(default_files, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"confidence\.npz does not exist.*predict_with_confidence\.sh"):
        command.run(get_args_parser().parse_args([]))
    rows = rows_of(simulate(assets, 1, 4, WORLD), assets)
    save_predictions(tmp_path / "out/dex_ycb/predictions/confidence.npz", replace(rows, keypoints_2d=None))
    with pytest.raises(FileNotFoundError, match=r"keypoints\.npz does not exist.*predict_2d\.sh"):
        command.run(get_args_parser().parse_args([]))
    save_predictions(tmp_path / "out/dex_ycb/predictions/keypoints.npz", replace(rows, pose=None, betas=None))
    with caplog.at_level(logging.INFO):
        command.run(get_args_parser().parse_args(["--num_images", "4", "--device", "cpu"]))
    assert (tmp_path / "out/dex_ycb/identities/identity_subject-08.json").is_file()
    for name in ("predictions/confidence.npz", "predictions/keypoints.npz", "out/dex_ycb/identities"):
        assert name in caplog.text


def test_methods_refuse_what_they_do_not_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for words in (
        ("--method", "mean", "--prior", "x"),
        ("--top_k", "3"),
        ("--method", "mean", "--known_bone", "a=1+-1"),
    ):
        with pytest.raises(SystemExit):
            arguments(tmp_path, *words)
        assert "does not use" in capsys.readouterr().err


def test_fitting_without_options_uses_the_scripts_files(
    assets: HandAssets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_files, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"baseline\.npz does not exist; scripts/eval_baseline\.sh writes it"):
        fit(fit_parser().parse_args([]))
    with monkeypatch.context() as installed, pytest.raises(FileNotFoundError, match="handid --phase predict"):
        installed.setattr(default_files, "_CODE", tmp_path)  # a wheel has no scripts
        fit(fit_parser().parse_args([]))
    rows = rows_of(simulate(assets, 1, 2, WORLD), assets)
    save_predictions(tmp_path / "out/dex_ycb/predictions/calibrated.npz", replace(rows, keypoints_2d=None))
    save_predictions(tmp_path / "out/dex_ycb/predictions/keypoints.npz", replace(rows, pose=None, betas=None))
    calibrate_predictions(rows, assets, KNOWN)[8].save(tmp_path / "out/dex_ycb/identities/identity_subject-08.json")
    fit(fit_parser().parse_args(["--shape_source", "calibrated", "--include_calibration_images", "--device", "cpu"]))
    assert len(load_predictions(tmp_path / "out/dex_ycb/fitted/calibrated.npz")) == 2


def test_a_confidence_that_is_asked_for_must_be_there(assets: HandAssets, tmp_path: Path) -> None:
    rows = rows_of(simulate(assets, 1, 4, WORLD), assets)
    save_predictions(tmp_path / "p.npz", replace(rows, keypoint_confidence=None))
    with pytest.raises(CalibrationError, match=r"p\.npz: has no keypoint_confidence"):
        command.run(arguments(tmp_path, "--min_confidence", "0.5"))
    words = ["--predictions", str(tmp_path / "p.npz"), "--output", str(tmp_path / "o.npz"), "--device", "cpu"]
    for more, told in (
        (["--min_confidence", "0.5"], "without which --min_confidence has no effect"),
        (["--solver", "adam", "--use_confidence"], "without which --use_confidence has no effect"),
    ):
        with pytest.raises(CalibrationError, match=told):
            fit(fit_parser().parse_args([*words, *more]))
    before = (tmp_path / "p.npz").read_bytes()
    for more, told in (
        (["--output", words[1]], "--output .*p.npz: is the file of --predictions"),
        (["--results", words[3]], "--results .*o.npz: is the file of --output"),
    ):
        with pytest.raises(OSError, match=told):
            fit(fit_parser().parse_args([*words, *more]))
    assert (tmp_path / "p.npz").read_bytes() == before


def test_laplace_only_where_the_depth_is_known(assets: HandAssets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no depth is known a longer hand has more room in metres; the correction would follow it."""
    world, calls = simulate(assets, 1, 3, WORLD), []
    real = multi_frame.log_volume_gradient
    monkeypatch.setattr(multi_frame, "log_volume_gradient", lambda *given: calls.append(1) or real(*given))
    rows, blind = rows_of(world, assets), replace(KNOWN, laplace=None, depth_mean=None)
    calibrate_predictions(rows, assets, replace(KNOWN, laplace=None))
    assert len(calls) == 1
    calibrate_predictions(rows, assets, blind)
    assert len(calls) == 1
    calibrate_predictions(rows, assets, blind, wrist_depth=np.full(3, 0.85))
    assert len(calls) == 2


def test_no_images_asked_for(assets: HandAssets, tmp_path: Path) -> None:
    save_predictions(tmp_path / "p.npz", rows_of(simulate(assets, 1, 4, WORLD), assets))
    args = arguments(tmp_path)
    args.num_images = 0
    with pytest.raises(CalibrationError, match="--num_images is 0"):
        command.run(args)


def test_draws_are_of_the_new_images_alone(
    assets: HandAssets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An earlier identity that was merged into the first of them counted as spread."""
    caplog.set_level(logging.INFO)
    rows = rows_of(simulate(assets, 1, 6, WORLD, seed=2), assets)
    own = Identity(np.zeros(10), assets.name, assets.hash, lengths_mm(assets, np.zeros(10), None, ("hand",))["hand"][0])
    save_identity(tmp_path / "old.json", own)
    of_draw = [[0], [0], [0], [0], [1], [2]]
    drawn = lambda *_, **__: replace(own, hand_length_mm=180.0, image_ids=of_draw.pop())  # noqa: E731
    monkeypatch.setattr(command, "calibrate_person", drawn)
    monkeypatch.setattr(command, "merge_identities", lambda *_, **__: replace(own, hand_length_mm=200.0))
    words = ["--predictions", "p", "--draws", "3", "--output", str(tmp_path / "me.json")]
    args = get_args_parser().parse_args([*words, "--merge_with", str(tmp_path / "old.json")])
    calibrate_and_write(args, Images(rows), KNOWN, assets, torch.device("cpu"))
    assert "hand length over 3 draws 180.0 ± 0.0 mm" in caplog.text
    caplog.clear()
    calibrate_and_write(args, Images(rows), KNOWN, assets, torch.device("cpu"))
    assert "every draw takes the same images" in caplog.text and "±" not in caplog.text
    photos = get_args_parser().parse_args(["--images", "p", *words[2:]])
    with pytest.raises(CalibrationError, match="say how many each takes"):
        calibrate_and_write(photos, Images(rows), KNOWN, assets, torch.device("cpu"))
