"""From the options of the image and video demo to the estimator it works with, and the folder it writes to."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from options.image_options import DETECTOR, NETWORK, OWN
from src.engine.networks import is_told_shape
from src.models import MODELS
from src.models.mesh_joints import is_mesh_model
from src.personalization.terms.hand_size import load_identity
from src.photos.api import ANONYMOUS, PERSONAL, PhotoEstimator, open_detector, open_estimator
from src.photos.camera import parse_intrinsics
from src.photos.detector.mediapipe_hands import install_advice, is_installed
from src.photos.detector.own_hands import DETECTOR_WEIGHTS, OwnHands, open_own_hands
from src.photos.detector.search import WindowReader
from src.photos.estimator import HandEstimator
from src.photos.keypoint_estimator import for_person
from src.photos.onnx_network import through_onnx
from template import load_hand_assets
from utils.artifacts import Identity
from utils.cameras.files import read_camera
from utils.cameras.intrinsics import checked_fov
from utils.cameras.poses import CameraPose, check_count, read_poses
from utils.device import choose_device

logger = logging.getLogger(__name__)


def open_tools(args: argparse.Namespace) -> PhotoEstimator:
    """Read weights, hand, prior and identity.

    Raises:
        FileNotFoundError: weights or identity are missing; says where they were looked for.
        ValueError: an identity of another hand, a K or fov that is none, a model without a mesh.
        RuntimeError: the detector is not installed; says how to get it.
    """
    check_options(args)
    K, fov = parse_intrinsics(args.K) if args.K else None, checked_fov(args.fov)
    lens = read_camera(args.camera, args.camera_name) if args.camera else None
    device, folder = choose_device(args.device, args.threads), Path(args.weights)
    assets, side = load_hand_assets(args.mano_dir, "right"), args.hand
    identity = load_identity(args.identity, side, assets) if args.identity else None
    if identity is not None and side is None and identity.side != "both" and not args.one_person:
        side = identity.side
        logger.info("%s is of a %s hand: those are looked for", identity.source, side)
    detector, source = None, keypoint_source(args)
    try:
        if source == DETECTOR:
            check_detector(args)
        if source != NETWORK:
            detector = open_detector(assets, folder, args.landmarker, source, device, flat=args.video is None)
    except ImportError as error:
        raise RuntimeError(f"--keypoints {DETECTOR}: {error}") from error
    if detector is not None and not is_mesh_model(args.model):
        tools = detector
    else:
        path, released = network_file(args, identity), {"backbone": args.backbone, "hierarchy": args.hierarchy}
        tools = open_estimator(path, assets, device, args.model, folder=folder, **released)
        card = tools.estimator.card
        if "--model" in args.given_options and (args.checkpoint or args.resume) and card.model != args.model:
            raise ValueError(f"{path} is a {card.model}, not a {args.model}: leave --model out, or name that")
        if args.shape == "mean" and not is_told_shape(card):
            raise ValueError(f"{card.model} predicts the shape, so --shape mean has no effect; leave it out")
        if is_told_shape(card) and identity is None and args.shape != "mean":
            raise ValueError(
                f"{card.model} needs the person's shape: --identity FILE (calibrate_from_shape_params.py writes it), "
                "or --shape mean to do without"
            )
        if detector is not None:
            tools = replace(tools, detector=detector.detector, alone=detector.estimator)
    bbox = None if args.bbox is None else tuple(args.bbox)
    given = {"K": K, "fov": fov, "bbox": bbox, "hand": side, "one_person": args.one_person}
    given["side_of_identity"] = side != args.hand
    if args.engine == "onnx" and device.type == "cpu":
        compute_by_onnx(tools)
    elif args.engine == "onnx":
        logger.warning("--engine onnx is for the CPU: PyTorch computes on %s", device)
    return replace(for_person(tools, identity), **given, lens=lens)


def compute_by_onnx(tools: PhotoEstimator) -> None:
    """Let ONNX Runtime compute the networks of ``tools``, also those that find the hands of a video for them.

    Raises:
        ValueError: there are none: mediapipe's are computed by mediapipe.
    """
    own, count = tools.detector, 0
    if tools.weights is not None and (tools.weights.parent / DETECTOR_WEIGHTS).is_file() and tools.reader is not None:
        own = open_own_hands(tools.weights.parent, tools.reader.device)
    for part in (tools.estimator, tools.reader, getattr(own, "reader", None)):
        if isinstance(part, (HandEstimator, WindowReader)):
            part.network, count = through_onnx(part.network, part.card), count + 1
    if isinstance(own, OwnHands):
        own.detector, count = through_onnx(own.detector, own.card), count + 1
    if not count:
        raise ValueError("--engine onnx: none of our networks computes here; leave it out, or choose --keypoints own")


def check_options(args: argparse.Namespace) -> None:
    """Options that contradict each other or have no effect here; `options.run_options` knows those of a phase.

    Raises:
        ValueError: naming them.
    """
    given = args.given_options
    if args.K and args.fov is not None:
        raise ValueError("--K and --fov both say what the lens is; give one")
    if args.camera and (args.K or args.fov is not None):
        raise ValueError("--camera and --K or --fov both say what the lens is; give one")
    if args.resume == "auto":
        raise ValueError("--resume without a file is for training; the demo takes --resume FILE or --checkpoint FILE")
    if args.shape is not None and args.shape != ("mean" if args.identity is None else "calibrated"):
        has = "--identity FILE is the shape" if args.identity else "without --identity only 'mean' can be chosen"
        raise ValueError(f"--shape {args.shape} does not go with that: {has} (pictures have no annotations)")
    if (source := keypoint_source(args)) != NETWORK and not is_mesh_model(args.model):
        if unused := sorted(given & {"--checkpoint", "--resume", "--model", "--backbone", "--hierarchy", "--shape"}):
            raise ValueError(f"--keypoints {source} fits the hand without a network: leave {', '.join(unused)} out")
    elif not (args.checkpoint or args.resume) and "--backbone" in given:
        raise ValueError("--backbone is of a released --checkpoint, which does not say it; the shipped weights do")
    if args.landmarker and keypoint_source(args) != DETECTOR:
        raise ValueError(f"--landmarker is of --keypoints {DETECTOR}, not of networks of ours; leave it out")
    if "--hierarchy" in given and not (args.checkpoint or args.resume or is_mesh_model(args.model)):
        raise ValueError(f"--hierarchy is of networks that predict meshes; --model {args.model} has none")


def keypoint_source(args: argparse.Namespace) -> str:
    """``--keypoints``; where it is not given the detector, unless a network is asked for."""
    asks_for_network = args.given_options & {"--model", "--checkpoint", "--resume"}
    return args.keypoints or (NETWORK if asks_for_network else DETECTOR)


def check_detector(args: argparse.Namespace) -> None:
    """Raise RuntimeError if the detector, which nobody asked for by name, is not installed; says what can be done."""
    if args.keypoints is None and not is_installed():
        raise RuntimeError(
            f"own pictures need the hand detector: {install_advice()} (or --keypoints {OWN}: our own detector, which "
            "errs more often, above all in the side; say --hand if you know it)"
        )


def network_file(args: argparse.Namespace, identity: Identity | None) -> Path:
    """``--checkpoint``, else ``--resume``, else the shipped weights of ``--model``.

    With an identity the default network is the one that uses it, ``mano_identity``.

    Raises:
        ValueError: a model that gives no mesh.
    """
    if args.checkpoint or (args.resume and args.resume != "auto"):
        return Path(args.checkpoint or args.resume)
    if args.model not in MODELS or args.model == "pose_2d":
        names = ", ".join(sorted(set(MODELS) - {"pose_2d"}))
        raise ValueError(f"--model {args.model} gives no mesh; the demo takes {names}")
    name = args.model
    if name in ("mano_baseline", ANONYMOUS):
        name = ANONYMOUS if identity is None else PERSONAL
        if identity is not None:
            logger.info("an identity is given: taking %s instead of %s", PERSONAL, args.model)
    return Path(args.weights) / f"{name}.safetensors"


def camera_poses(args: argparse.Namespace, count: Callable[[], int], what: str) -> list[CameraPose] | None:
    """``--world_from_camera``: the camera's pose of each of ``count()`` pictures or frames (``what``), None without.

    Raises:
        FileNotFoundError, ValueError: see `read_poses`; another number of them.
    """
    if not args.world_from_camera:
        return None
    poses = read_poses(args.world_from_camera, args.world_axes)
    check_count(poses, count(), f"--world_from_camera {args.world_from_camera}", what)
    return poses


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within the block SIGTERM and a closed terminal raise KeyboardInterrupt, as Ctrl-C does, so that files are closed.

    Whoever is impatient sends a second one while they are: that one is ignored, the third stops at once.
    """
    count = 0

    def stop(*_: object) -> None:
        nonlocal count
        count += 1
        if count != 2:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals go elsewhere
        yield
        return
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
