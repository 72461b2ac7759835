"""A person's photos to an identity: `calibrate`, and ``calibrate_from_shape_params.py --images DIR``."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from options.image_options import DETECTOR, OWN
from src.personalization.calibration.command import calibrate_and_write, stated_options
from src.personalization.calibration.from_joints import calibrate_joints
from src.personalization.calibration.from_keypoints import (
    SOMEBODY,
    are_results,
    fit_options,
    keypoint_options,
    keypoints_of,
    noise_of,
    predictions_from_keypoints,
)
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.images import AVERAGES, Images, rows_by_subject
from src.personalization.calibration.population import (
    CalibrationOptions,
    Population,
    default_options,
    load_population,
    shapes_of,
)
from src.personalization.estimates.sides import check_stated_side
from src.personalization.landmarks.model import LandmarkModel, find_landmarks, load_landmarks
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import ruler_cues
from src.photos.camera import GUESSED, Camera, lens_camera, parse_intrinsics
from src.photos.detector.detection import Detection, Finder, finder_name
from src.photos.detector.finders import beliefs_of, landmarks_of, open_finder
from src.photos.detector.mediapipe_hands import find_hands
from src.photos.detector.refusal import MIN_SIDE
from src.photos.hands import check_one_person, find_photo_hands, keypoint_hands, warn_of_guesses
from src.photos.measuring.flat_hand import flat_hand_cues
from src.photos.measuring.plane import RECTANGLES
from src.photos.result import Result
from src.photos.setup import check_detector
from template import HandAssets, load_hand_assets, right_hand
from utils.artifact_checks import as_array
from utils.artifacts import HandMismatchError, Identity, Predictions
from utils.cameras.intrinsics import checked_fov, checked_intrinsics
from utils.cameras.lens import CameraModel
from utils.device import choose_device

logger = logging.getLogger(__name__)

DEFAULT_OUTPUT = "out/own_photos/identity.json"


def calibrate(
    source: Any = None,
    *,
    joints: Any = None,
    K: Any = None,
    confidence: Any = None,
    fov: float | None = None,
    camera: str | os.PathLike | CameraModel | None = None,
    camera_name: str | None = None,
    hand: str | None = None,
    hand_length_mm: float | None = None,
    hand_length_std_mm: float | None = None,
    prior: str | os.PathLike | Population | None = None,
    method: str = "multi_frame",
    subject: int | None = None,
    assets: HandAssets | None = None,
    device: torch.device | str = "cpu",
    keypoints: str = DETECTOR,
    finder: Finder | None = None,
    card: str | os.PathLike | None = None,
    paper: str | os.PathLike | None = None,
    letter: str | os.PathLike | None = None,
    corners: Any = None,
    accept_conflict: bool = False,
    same_video: bool | None = None,
    error_correlation: float | None = None,
    landmarks: LandmarkModel | str | os.PathLike | None = None,
) -> Identity:
    """One person's hand shape, with its uncertainty, from many images. The more, and the more varied, the better.

    >>> identity = calibrate("photos_of_me", fov=66, hand_length_mm=183)
    >>> identity.length_mm, identity.interval_mm
    >>> identity.save("me.json")

    Args:
        source: a folder of photos of one person, or paths of photos; or `Predictions` of one person
            (or of several, and ``subject``); or 2D keypoints (N,21,2), px, standard order, one hand an image; or
            results of ``handid.load(...)``, of which the keypoints are taken.
        joints: instead, (N,21,3) points in space, m of their own, as `handid.fit` takes them, of one side (``hand``).
            An error of their scale is in no interval. ``error_correlation`` of theirs is 1 if not said.
        K: (3,3) px, of pictures of one size, of keypoints (N,3,3) too; None: EXIF, ``<name>_K.npy``, or ``fov``.
        confidence: (N,21) in [0,1] of keypoints or joints, zero where unseen; None: all one.
        fov: degrees of view across the photos' longer side.
        camera: of photos, a lens with distortion: its file or numbers (`utils.cameras.files.read_camera`); camera_name:
            which one of a file with several.
        hand: "left" or "right": of photos only hands of that side; None: both, a person's hands share their shape.
            Keypoints and joints are of a right hand unless "left".
        hand_length_mm: ruler, wrist joint to middle fingertip of the stretched hand. One camera does not see absolute
            size: without it the size rests on what people's hands are like.
        hand_length_std_mm: of the ruler; 3 (if not said) is careful measuring, 5 is not.
        prior: population file (or `Population`); None: the shipped one where it fits.
        method: "multi_frame" (or "joint"), or of predictions "mean", "top_k", "confidence": averages of their shapes.
        subject: its number.
        assets: the right hand's model, also for left hands; None: `load_hand_assets`.
        keypoints: who finds the hands of photos, "mediapipe", or "own": our own detector; finder: another one, whose
            points are mediapipe's unless its ``name`` says otherwise.
        landmarks: of joints, whose points these are, e.g. "mediapipe", as of `handid.fit`.
        card, paper, letter: a picture of the flat hand beside a bank card, an A4 or a US Letter sheet, which tells the
            hand's size as a ruler does; corners: (4,2) px of it there, about its outline, a long side first; None:
            looked for.
        same_video: all images are frames of one video, whose errors repeat; False: none repeats another; None: told
            from how the hand is held in them.
        error_correlation: part of their errors that different images share, 0 to 1; None: 0.3 in a video, else what is
            known of their source.
        accept_conflict: use photos even if their hands seem to be several people's, and a length even if it
            contradicts the images.

    Returns:
        `Identity`: ``betas``, ``covariance``, ``length_mm``, ``interval_mm`` (95%), ``save(path)``.

    Raises:
        ImportError: photos, and mediapipe is missing; says what to install.
        HandMismatchError: predictions or prior of another hand model.
        CalibrationError, FileNotFoundError, ValueError: nothing to calibrate from, several people, or it contradicts
            itself; says what.
    """
    if (source is None) == (joints is None):
        raise CalibrationError("give photos, results, predictions or keypoints, or else joints=, (N,21,3) m")
    kinds = {"photos"} if isinstance(source, str | os.PathLike) else set()
    if not kinds and isinstance(source, Sequence):
        kinds = {
            "photos" if isinstance(one, str | os.PathLike) else "results" if hasattr(one, "keypoints") else "keypoints"
            for one in source
        }
    if len(kinds) > 1:
        raise CalibrationError(f"{' and '.join(sorted(kinds))} are mixed; calibrate from those of one kind")
    photos = kinds == {"photos"}
    if hand not in (None, "left", "right"):
        raise CalibrationError(f"hand is {hand!r}; it must be 'left', 'right' or None")
    of_photos: dict[str, Any] = {"fov": fov, "camera": camera, "camera_name": camera_name, "card": card, "paper": paper}
    of_photos |= {"letter": letter, "corners": corners, "keypoints": None if keypoints == DETECTOR else keypoints}
    of_photos["finder"] = finder
    own = {"K": K, "confidence": confidence, "hand": hand}
    if not photos and (given := [name for name, value in of_photos.items() if value is not None]):
        raise CalibrationError(f"{', '.join(given)}: of photos; others bring or take K, and take hand_length_mm")
    if photos and confidence is not None:
        raise CalibrationError("confidence: of keypoints; a photo's come from the detector")
    if sum(value is not None for value in (K, fov, camera)) > 1:
        raise CalibrationError("K, fov and camera say what the lens is; give one")
    fov = checked_fov(fov, "fov")
    complete = isinstance(source, Predictions) or are_results(source)
    if complete and (given := [name for name, value in own.items() if value is not None]):
        raise CalibrationError(f"{', '.join(given)}: predictions and results bring their own; leave it out")
    if not isinstance(source, Predictions) and method not in ("multi_frame", "joint"):
        raise CalibrationError(f"method {method!r} averages a network's shapes; without one it is 'multi_frame'")
    assets = right_hand(assets)
    people = prior if prior is None or isinstance(prior, Population) else load_population(prior, assets.hash)
    if people is not None and people.hand_hash not in ("", assets.hash):
        raise HandMismatchError(f"prior: of the hand model {people.hand_hash}, in use is {assets.name!r} {assets.hash}")
    cues = ruler_cues(hand_length_mm, hand_length_std_mm)
    told: dict[str, Any] = {"cues": cues, "accept_conflict": accept_conflict, "same_video": same_video}
    if (share := error_correlation) is not None:
        told |= {"errors_repeat": False, "error_correlation": share, "video_correlation": share}
    if joints is not None:
        if K is not None or same_video is not None:
            raise CalibrationError("K and same_video are of pictures; of joints error_correlation says what repeats")
        if landmarks is not None and not isinstance(landmarks, LandmarkModel):
            landmarks = load_landmarks(landmarks, assets.hash)
        options = CalibrationOptions(population=shapes_of(assets, people), landmarks=landmarks)
        options = replace(options, **({"error_correlation": 1.0} | told))  # nobody measured how they err: the worst
        return calibrate_joints(as_array(joints), confidence, hand or "right", assets, options, subject, device)
    if landmarks is not None:
        raise CalibrationError("landmarks: of joints; what finds the keypoints of pictures is known")
    said = subject
    if isinstance(source, Predictions):
        present, rows = list(rows_by_subject(source, subject)), source
        if len(present) > 1:
            raise CalibrationError(f"{source.source} is of the subjects {present}; say which: subject={present[0]}")
        said = subject = present[0]
        options = replace(default_options(assets, rows.model_name, rows.dataset, people), **told)
    elif photos:
        subject = SOMEBODY if subject is None else subject
        finder = open_finder(keypoints, device=device) if finder is None else finder
        options = replace(photo_beliefs(assets, people, device, finder), **told)
        if camera_name is not None and (camera is None or isinstance(camera, CameraModel)):
            raise CalibrationError("camera_name: which camera of a file; give that as camera")
        lens = None if camera is None else lens_camera(camera, camera_name)
        if K is not None:
            text = isinstance(K, str | os.PathLike)
            lens = parse_intrinsics(str(K)) if text else Camera(checked_intrinsics(K, "K", one=True), "given")
        flat = {"card": card, "paper": paper, "letter": letter}
        rows, options = evidence_of_photos(
            source, flat, corners, hand, lens, fov, options, assets, subject, device, finder
        )
    else:
        subject = SOMEBODY if subject is None else subject
        if are_results(source):
            source = with_sure_sides(source)
        noise = noise_of(source, assets, people)
        detected = are_results(source) and seen_by_detector(source, accept_conflict)
        landmarks = find_landmarks(DETECTOR, assets) if detected else None
        options = replace(keypoint_options(assets, shapes_of(assets, people), device, noise, landmarks), **told)
        hands = keypoints_of(source, K, confidence, hand)
        rows = predictions_from_keypoints(hands, assets, options, subject, device)
        if not are_results(source) and not accept_conflict:  # of results the detector said the side
            check_stated_side(rows, assets, fit_options(options), device)
    found = calibrate_predictions(
        rows,
        assets,
        options,
        method=method,
        num_images=None,
        subject=subject,
        device=device,
        created_by="handid.calibrate",
    )
    identity = found[subject]
    return identity if said is not None else replace(identity, subject_id=None)


def with_sure_sides(results: Sequence[Result]) -> list[Result]:
    """Those whose detector is as sure of the side as of a photo's is asked (`check_side`); the others are logged.

    Raises:
        CalibrationError: none.
    """
    sure = [one for one in results if one.certainty.get("side", 1.0) >= MIN_SIDE]
    if len(sure) < len(results):
        said = (
            f"{len(results) - len(sure)} of {len(results)} results are not sure to be of a left or a right hand "
            f"({MIN_SIDE} is needed); where you know it, say side= when they are estimated"
        )
        if not sure:
            raise CalibrationError(said)
        logger.warning("%s; left out", said)
    return sure


def seen_by_detector(results: Sequence[Result], accept_conflict: bool) -> bool:
    """Whether keypoints of results are mediapipe's, which are not joints; a warning where their cameras are guesses.

    Raises:
        CalibrationError: those of some are and of others not, or as `check_one_person`.
    """
    names = sorted({one.sources.keypoints for one in results})
    if DETECTOR in names and len(names) > 1:
        raise CalibrationError(f"keypoints of these results are by {', '.join(names)}; calibrate those of each alone")
    guessed = [one.sources.camera for one in results if one.sources.camera.startswith(GUESSED)]
    warn_of_guesses(guessed, len(results))
    if names != [DETECTOR]:
        return False
    hands = [Detection(one.keypoints, one.confidence, one.side == "left", 1.0, one.world) for one in results]
    check_one_person(hands, accept_conflict)
    return True


def calibrate_photos(args: argparse.Namespace, finder: Finder | None = None) -> dict[int, Identity]:
    """Find the hands, fit each one alone, then all together with one shape; writes one identity file.

    Args:
        args: of `options.calibrate`; finder: the detector; None: what ``--keypoints`` names.

    Raises:
        RuntimeError, ImportError: mediapipe is missing; says what to install, or do instead.
        CalibrationError, FileNotFoundError, ValueError: options that do not go together, or nothing to calibrate from.
    """
    if args.keypoints not in (None, DETECTOR, OWN):
        raise CalibrationError(
            f"--images needs --keypoints {DETECTOR} or {OWN}: photos hold no predictions of a network"
        )
    if args.method in AVERAGES:
        raise CalibrationError(f"--method {args.method} averages a network's shapes; photos take --method multi_frame")
    if args.select == "confidence":
        raise CalibrationError("--select confidence needs a network's confidence; take random or informative")
    if len(args.given_options & {"--K", "--fov", "--camera"}) > 1:
        raise CalibrationError("--K, --fov and --camera say what the lens is; give one")
    if args.output is None:
        args.output = DEFAULT_OUTPUT
        logger.info("--output is not given: %s", args.output)
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    if finder is None:
        check_detector(args)
        finder = open_finder(args.keypoints or DETECTOR, args.landmarker, device=device)
    options = photo_options(args, assets, device, finder)
    K, fov = parse_intrinsics(args.K) if args.K else None, checked_fov(args.fov)
    K = lens_camera(args.camera, args.camera_name) if args.camera else K
    flat = {kind: getattr(args, kind) for kind in RECTANGLES}
    subject = SOMEBODY if args.subject is None else args.subject
    rows, options = evidence_of_photos(
        args.images, flat, args.corners, args.hand, K, fov, options, assets, subject, device, finder
    )
    return calibrate_and_write(args, Images(rows), options, assets, device)


def photo_options(
    args: argparse.Namespace, assets: HandAssets, device: torch.device, finder: Finder = find_hands
) -> CalibrationOptions:
    """`keypoint_options`, with what the command line says.

    Of a population file (--prior, or the shipped one) only the shapes are taken: its poses, depths and noise are a
    network's and its data set's.
    """
    population = None if args.prior is None else load_population(args.prior, assets.hash)
    return stated_options(args, photo_beliefs(assets, population, device, finder))


def photo_beliefs(
    assets: HandAssets, population: Population | None, device: torch.device | str, finder: Finder = find_hands
) -> CalibrationOptions:
    """`keypoint_options` of the detector's landmarks; of a population the shapes alone."""
    people, landmarks = shapes_of(assets, population), landmarks_of(finder, assets)
    return replace(keypoint_options(assets, people, device, landmarks=landmarks), **beliefs_of(finder, assets))


def evidence_of_photos(
    source: str | os.PathLike | Sequence[str | os.PathLike],
    flat: dict[str, str | os.PathLike | None],
    corners: Any,
    side: str | None,
    K: Camera | None,
    fov: float | None,
    options: CalibrationOptions,
    assets: HandAssets,
    subject: int,
    device: torch.device | str,
    finder: Finder,
) -> tuple[Predictions, CalibrationOptions]:
    """Hands found in photos, each fitted alone, and the options with the lengths of a hand that lies flat beside a card
    or a sheet of paper, if it is given.

    Args:
        flat: by kind (of `RECTANGLES`), the picture, or None; corners: eight numbers px of it.

    Raises:
        CalibrationError: as `flat_hand_cues`, `find_photo_hands`, `check_one_person`, `predictions_from_keypoints`; two
            pictures of a flat hand, or corners of none.
    """
    given = {kind: picture for kind, picture in flat.items() if picture is not None}
    if len(given) > 1:
        raise CalibrationError("one of --card, --paper and --letter: each tells the hand's size")
    if not given and corners is not None:
        raise CalibrationError("--corners are of --card, --paper or --letter")
    for kind, picture in given.items():
        where = None if corners is None else np.reshape(np.asarray(corners, dtype=np.float64), (4, 2))
        cues = flat_hand_cues(picture, kind, finder, side, where, K, fov)
        options = replace(options, cues=(*options.cues, *cues))
    hands = find_photo_hands(source, side, K, fov, finder)
    check_one_person([hand.hand for hand in hands], options.accept_conflict)
    rows = predictions_from_keypoints(keypoint_hands(hands), assets, options, subject, device, finder_name(finder))
    logger.info("%d hands of %d found are used", len(rows), len(hands))
    return rows, options
