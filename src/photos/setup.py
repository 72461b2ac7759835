"""From the options of the image and video demo to the objects it works with."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from src.engine.checkpoint import load_network
from src.engine.networks import PRIOR, is_told_shape, read_network
from src.models import MODELS
from src.models.mesh_joints import is_mesh_model
from src.personalization.calibration.population import Population, load_population, with_population
from src.personalization.fitting.fit import FitOptions
from src.personalization.solver.status import CalibrationError
from src.photos.boxes import Region, choose_region
from src.photos.camera import Camera, checked_fov, choose_camera, parse_intrinsics
from src.photos.estimator import Estimator, HandEstimator
from src.photos.image import Photo
from src.photos.keypoint_estimator import KeypointEstimator
from src.photos.result import Result, mirror_box
from src.photos.search import KeypointReader
from src.photos.shape_filter import ShapeFilter
from template import HandAssets, load_hand_assets
from utils.artifacts import Identity, load_identity
from utils.camera import mirror_intrinsics
from utils.device import choose_device

logger = logging.getLogger(__name__)

KEYPOINT_WEIGHTS = "pose_2d.safetensors"


@dataclass
class DemoTools:
    """Everything the demo needs for a picture.

    Attributes:
        estimator: network and fitting, or fitting alone; reader: keypoint network to look for hands with, or None.
        weights: file of the network, or None; digest: hash of its weights.
        identity: the person's shape, or None; population: how networks see shapes, or None.
        K, fov, bbox, hand, keypoints: as given on the command line.
    """

    estimator: Estimator
    reader: KeypointReader | None
    weights: Path | None
    digest: str
    identity: Identity | None
    population: Population | None
    K: Camera | None
    fov: float | None
    bbox: tuple[float, float, float, float] | None
    hand: str | None
    keypoints: str

    @property
    def assets(self) -> HandAssets:
        """Right hand in use."""
        return self.estimator.assets

    def shape(self) -> ShapeFilter:
        """A new person's, or the identity's, shape."""
        return ShapeFilter(self.assets, self.identity, self.population)

    def camera(self, photo: Photo) -> Camera:
        """Intrinsics of a picture, see `choose_camera`."""
        return choose_camera(photo, self.K, self.fov)

    def region(self, photo: Photo) -> Region:
        """The hand of a picture, see `choose_region`."""
        card = self.estimator.card
        looks = None if card.crop == "image" else self.reader
        region = choose_region(photo, self.bbox, self.hand, self.keypoints, looks)
        # Networks of meshes have keypoints of their own, which belong to their meshes.
        searched = self.keypoints == "network" and is_mesh_model(card.model)
        return replace(region, keypoints=None) if searched else region

    def estimate(
        self, photo: Photo, camera: Camera, region: Region, shape: ShapeFilter, before: Result | None = None
    ) -> Result:
        """`Estimator.estimate` for either hand, in and out in the picture's own frame."""
        image, K, box, keypoints, width = photo.image, camera.K, region.box, region.keypoints, photo.size[0]
        if region.is_left:
            image, K, box = image[:, ::-1], mirror_intrinsics(K, width), mirror_box(box, width)
            keypoints = None if keypoints is None else keypoints.mirrored(width)
            before = None if before is None else before.mirrored()
        result = self.estimator.estimate(image, K, box, shape, keypoints, before)
        result = result.mirrored() if region.is_left else result
        sources = replace(result.sources, camera=camera.source, box=region.source, side=region.side_source)
        return replace(result, sources=sources)


def open_tools(args: argparse.Namespace) -> DemoTools:
    """Read weights, hand, prior and identity.

    Raises:
        FileNotFoundError: weights or identity are missing; says where they were looked for.
        ValueError: an identity of another hand, a K or fov that is none, a model without a mesh.
    """
    K, fov = parse_intrinsics(args.K) if args.K else None, checked_fov(args.fov)
    identity = load_identity(args.identity, args.hand) if args.identity else None
    device, folder = choose_device(args.device, args.threads), Path(args.weights)
    assets = load_hand_assets(args.mano_dir, "right")
    rest = (K, fov, None if args.bbox is None else tuple(args.bbox), args.hand, args.keypoints)
    if args.keypoints == "mediapipe":
        require_detector()
        if not is_mesh_model(args.model):
            if identity is not None:
                identity.check_hand(assets)
            population = population_of(folder, assets)
            return DemoTools(KeypointEstimator(assets, population), None, None, "", identity, population, *rest)
    path = network_file(args, identity)
    network, card, digest = read_network(path, device, assets, args.model, args.backbone, args.hierarchy)
    if card.model == "pose_2d":
        raise ValueError(f"{path} is a pose_2d, which gives no mesh")
    if identity is not None:
        identity.check_hand(assets)
    if is_told_shape(card) and identity is None and args.shape != "mean":
        raise ValueError(
            f"{card.model} needs the person's shape: --identity FILE (calibrate_from_shape_params.py writes it), or "
            "--shape mean to do without"
        )
    population = population_of(folder, assets) if path.parent == folder else None  # it belongs to those networks
    options = FitOptions() if population is None else with_population(FitOptions(), population, keep_depth=True)
    reader = open_reader(folder / KEYPOINT_WEIGHTS, device)
    estimator = HandEstimator(network, card, assets, reader, options, device)
    return DemoTools(estimator, reader, path, digest, identity, population, *rest)


def require_detector() -> None:
    """Open mediapipe before any work is done.

    Raises:
        RuntimeError: it is not installed; says how to get it.
    """
    from src.photos.detector import find_hands

    try:
        find_hands(np.zeros((64, 64, 3), np.uint8))
    except ImportError as error:
        raise RuntimeError(f"--keypoints mediapipe: {error}") from error


def population_of(folder: Path, assets: HandAssets) -> Population | None:
    """The shipped population if it is there and of this hand."""
    try:
        return load_population(folder / PRIOR, assets.hash)
    except FileNotFoundError:
        return None
    except CalibrationError as error:
        logger.warning("%s; going on without it", error)
        return None


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
    if name in ("mano_baseline", "mano_baseline_conf"):
        name = "mano_baseline_conf" if identity is None else "mano_identity"
        if identity is not None:
            logger.info("an identity is given: taking mano_identity instead of %s", args.model)
    path = Path(args.weights) / f"{name}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.safetensors"))) or "no weights"
        raise FileNotFoundError(f"{path}: no such file (there is {there}); give your own with --checkpoint FILE")
    return path


def open_reader(path: str | Path, device: torch.device) -> KeypointReader | None:
    """The shipped keypoint network, if it is there."""
    if not Path(path).is_file():
        return None
    network, card, _ = load_network(path, device)
    return KeypointReader(network, card, device)


def writable_folder(path: str | os.PathLike) -> Path:
    """Make the folder and see whether a file can be written there, before any work is done.

    Raises:
        OSError: naming the folder and what is wrong with it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"--output {folder}: cannot be written to ({error.strerror or error}); choose another") from error
    return folder


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that files are closed."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: signals go elsewhere
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
