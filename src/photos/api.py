"""Pictures to hands from Python: ``estimate = load("mano_identity")``, then ``estimate(image, fov=60)``."""

from __future__ import annotations

import contextlib
import copy
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from options.image_options import DETECTOR, OWN
from src.engine.networks import read_network
from src.models.mesh_joints import is_mesh_model
from src.personalization.calibration.population import SHIPPED_PRIOR, Population, shipped_population, with_population
from src.personalization.fitting.fit import FitOptions
from src.personalization.terms.hand_size import opened_identity
from src.photos.boxes import Refused, Region, choose_regions
from src.photos.camera import Camera, choose_camera
from src.photos.detector.detection import Finder
from src.photos.detector.finders import beliefs_of, finder_trained_on, landmarks_of, open_finder
from src.photos.detector.refusal import MAX_MISFIT_OF_OWN, MIN_SIDE_OF_OWN, check_size
from src.photos.detector.search import KeypointReader, open_reader
from src.photos.estimator import Estimator, HandEstimator, HandInPicture
from src.photos.image import Photo, UnusableImage, photo_of, shown_name
from src.photos.keypoint_estimator import KeypointEstimator, for_person
from src.photos.perspective import into_view, out_of_view, view_for
from src.photos.result import Result
from src.photos.shape_filter import ShapeFilter
from template import HandAssets, load_hand_assets
from utils.artifacts import ArtifactError, Identity
from utils.camera import mirror_intrinsics, mirror_points
from utils.cameras.intrinsics import checked_fov, checked_intrinsics
from utils.cameras.lens import CameraModel
from utils.device import choose_device
from utils.short_repr import ShortRepr

WEIGHTS = SHIPPED_PRIOR.parent
#: The network that predicts a shape, and the one that is told it: which of them looks depends on the identity.
ANONYMOUS, PERSONAL = "mano_baseline_conf", "mano_identity"
SIDES = ("right", "left", "auto")
#: What the shipped networks learned from, for whoever reads the results.
SHIPPED_TRAINED_ON = "rendered pictures of a synthetic hand at a table top, no real picture"


@dataclass(repr=False)
class PhotoEstimator(ShortRepr):
    """Callable: a picture -> the `Result` of the surest hand in it. See `load`.

    Attributes:
        estimator: network and fitting, or fitting alone; personal: the one for a known identity, or None: the same.
        alone: fits the detector's keypoints without the network, where what the network says contradicts them.
        reader: keypoint network to look for hands with, or None; detector: gives hands and keypoints, or None.
        weights: file of the network, or None; digest: hash of its weights.
        population: how networks see shapes, and which shapes there are, or None.
        identity, K, fov, bbox, hand: of all pictures, where a call does not say; hand is "left", "right" or None.
        side_of_identity: the identity says ``hand``, and not the caller.
        lens: with distortion, of all pictures; or None.
        one_person: all hands of a picture are one person's, and share the shape.
    """

    estimator: Estimator
    personal: Estimator | None = None
    alone: Estimator | None = None
    reader: KeypointReader | None = None
    detector: Finder | None = None
    weights: Path | None = None
    digest: str = ""
    population: Population | None = None
    identity: Identity | None = None
    K: Camera | None = None
    fov: float | None = None
    bbox: tuple[float, float, float, float] | None = None
    hand: str | None = None
    side_of_identity: bool = False
    one_person: bool = False
    lens: CameraModel | None = None

    @property
    def trained_on(self) -> str:
        """What the network in use has seen."""
        if self.weights is None:
            return finder_trained_on(self.detector)
        return SHIPPED_TRAINED_ON if self.weights.parent == WEIGHTS else "not known: the user's own weights"

    @property
    def assets(self) -> HandAssets:
        """Right hand in use."""
        return self.estimator.assets

    def __call__(
        self,
        image: np.ndarray | str | os.PathLike,
        K: np.ndarray | None = None,
        fov: float | None = None,
        side: str | None = None,
        identity: Identity | str | os.PathLike | None = None,
        box: tuple[float, float, float, float] | None = None,
    ) -> Result:
        """Reconstruct one hand.

        Args:
            image: (H,W,3) uint8 RGB, or a file, whose EXIF may know the lens.
            K: (3,3) intrinsics, px. fov: degrees across the longer side. Of neither, EXIF or a guess is taken, and
                distances scale with it.
            side: which hand; "auto": what the detector says, or the side on which the keypoint network is surer. None:
                what the detector says, or, of networks, which do not look for it, "right".
            identity: the person's `Identity`, or its file. Good choices are a calibrated one, or None.
            box: left, top, right, bottom of the hand, px; None: it is looked for.

        Raises:
            UnusableImage: no hand is there, or K or box cannot belong to the picture; says why.
            ValueError: an argument is not what it should be, or a file beside the picture says the same; an identity of
                another side or hand model.
        """
        if side not in (*SIDES, None):
            raise ValueError(f"side is {side!r}; choose one of {', '.join(SIDES)}")
        side = self.hand or side if side in ("auto", None) else side
        photo = photo_of(image)
        identity, looked_for = self.identity if identity is None else identity, False
        if identity is not None:
            identity = opened_identity(identity, self.assets)
            looked_for = side == "auto" or (side is None and self.detector is not None)
            looked_for = looked_for and identity.side != "both"
            if looked_for:
                side = identity.side
            if identity.side not in (side or "right", "both"):
                raise ArtifactError(
                    f"{identity.source}: side is {identity.side!r}, but a {side or 'right'} hand is asked for"
                )
        if K is not None and fov is not None:
            raise ValueError("K and fov both say what the lens is; give one")
        for ending, given in (("_K.npy", [K, fov]), ("_bbox.json", [box])):
            if any(value is not None for value in given) and (beside := photo.beside(ending)) is not None:
                raise ValueError(f"{shown_name(beside)} beside the picture says it as well; keep that or the argument")
        camera = None if K is None else Camera(checked_intrinsics(K, "K", one=True), "K")
        call = replace(
            for_person(self, identity),
            K=self.K if camera is None and fov is None else camera,
            fov=checked_fov(fov, "fov") or self.fov,
            lens=self.lens if K is None and fov is None else None,
            bbox=self.bbox if box is None else box,
            hand=side,
            side_of_identity=looked_for,
        )
        results, refused = call.hands(photo)
        if not results:
            raise UnusableImage(refused[0].reason)
        return results[0]

    def hands(self, photo: Photo) -> tuple[list[Result], list[Refused]]:
        """All hands of a picture, surest first, and those that were found and are refused.

        Each has a shape of its own, or all the identity's; of ``one_person`` one that all of them agree on.

        Raises:
            UnusableImage: no hand is there at all, or K or box cannot belong to the picture.
        """
        camera, regions, common = self.camera(photo), self.regions(photo), self.shape()
        if self.one_person and len(regions) > 1 and not common.is_known:
            for region in regions:
                seen = copy.copy(common)
                with contextlib.suppress(UnusableImage):  # a hand that is refused says nothing of its shape
                    self.estimate(photo, camera, region, seen)
                    common = seen
            common.is_settled = common.count > 0
        results, refused = [], []
        for region in regions:
            try:
                results.append(self.estimate(photo, camera, region, copy.copy(common)))
            except UnusableImage as error:
                refused.append(Refused(region, str(error)))
        return results, refused

    def shape(self) -> ShapeFilter:
        """A new person's, or the identity's, shape."""
        return ShapeFilter(self.assets, self.identity, self.population)

    def camera(self, photo: Photo) -> Camera:
        """Intrinsics of a picture, see `choose_camera`."""
        return choose_camera(photo, self.K, self.fov, self.lens)

    def regions(self, photo: Photo) -> list[Region]:
        """The hands of a picture, see `choose_regions`."""
        reader = None if self.estimator.card.crop == "image" else self.reader
        regions = choose_regions(photo, self.bbox, self.hand, self.detector, reader)
        if self.side_of_identity:
            regions = [replace(region, side_source="identity") for region in regions]
        # Networks of meshes have keypoints of their own, which belong to their meshes.
        theirs = is_mesh_model(self.estimator.card.model) and self.detector is None
        return [replace(region, keypoints=None) for region in regions] if theirs else regions

    def estimate(
        self, photo: Photo, camera: Camera, region: Region, shape: ShapeFilter, before: Result | None = None
    ) -> Result:
        """`Estimator.estimate` for either hand, in and out in the picture's own frame.

        Hands that a pinhole camera before them would show otherwise are looked at as it would, see
        `src.photos.perspective`.
        """
        view = view_for(photo, camera, region, whole=self.estimator.card.crop == "image")
        if view is None:
            result = self.estimate_in_picture(photo, camera, region, shape, before)
            return replace(result, camera_pose=photo.camera_pose)
        # What a network read in the bent picture, it reads better in the view.
        region = region if self.detector is not None else replace(region, keypoints=None)
        before = None if before is None else before.moved(view.rotation.T)
        close = self.estimate_in_picture(*into_view(view, photo, region, camera.source), shape, before)
        return out_of_view(view, close, photo, camera)

    def estimate_in_picture(
        self, photo: Photo, camera: Camera, region: Region, shape: ShapeFilter, before: Result | None
    ) -> Result:
        """`estimate` with the picture taken for a pinhole camera's, and the network's window cut out of it as it is."""
        image, K, box, keypoints, width = photo.image, camera.K, region.box, region.keypoints, photo.size[0]
        if region.is_left:
            image, K, box = image[:, ::-1], mirror_intrinsics(K, width), mirror_points(box, width)
            keypoints = None if keypoints is None else keypoints.mirrored(width)
            before = None if before is None else before.mirrored()
        if keypoints is not None and self.detector is not None:
            check_size(keypoints)
        estimator = self.personal if self.personal is not None and shape.is_known else self.estimator
        seen = HandInPicture(image, K, box, shape, keypoints, before)
        try:
            result = estimator.estimate(seen)
        except UnusableImage as error:
            if self.alone is None or keypoints is None:
                raise
            result = self.alone.estimate(replace(seen, before=None))
            result.notes["network"] = f"its hand contradicts the keypoints, which were fitted alone ({error})"
        result = result.mirrored() if region.is_left else result
        sources = replace(result.sources, camera=camera.source, box=region.source, side=region.side_source)
        certainty = result.certainty if region.score is None else {"score": region.score, **result.certainty}
        return replace(result, sources=sources, certainty=certainty)


def load(
    name: str = PERSONAL,
    *,
    mano_dir: str | os.PathLike | None = None,
    device: torch.device | str | None = None,
    weights: str | os.PathLike = WEIGHTS,
) -> PhotoEstimator:
    """Open networks, ready to be called with pictures.

    Args:
        name: "mano_identity" predicts the shape as well where no identity is given; "mediapipe": that detector's
            keypoints and a fit, without a network of ours, the choice for real pictures; "own": the same with our own
            detector, where that is not installed; another name of a shipped network; or a checkpoint file.
        mano_dir: as of `load_hand_assets`: a folder with MANO, or None. It must be the hand of the networks.
        device: None: a GPU if there is one. weights: folder with the shipped networks.

    Raises:
        FileNotFoundError: there are no such weights. ValueError: they belong to another hand model; names both.
        ImportError: mediapipe is asked for and not installed; says how to get it.
    """
    assets, folder = load_hand_assets(mano_dir, "right"), Path(weights)
    device = choose_device("auto") if device is None else torch.device(device)
    if name in (DETECTOR, OWN):
        return open_detector(assets, folder, source=name, device=device)
    if name == PERSONAL and (folder / f"{ANONYMOUS}.safetensors").is_file():
        anonymous = open_estimator(folder / f"{ANONYMOUS}.safetensors", assets, device, ANONYMOUS, folder=folder)
        told = open_estimator(folder / f"{PERSONAL}.safetensors", assets, device, PERSONAL, folder=folder)
        return replace(anonymous, personal=told.estimator)
    path = Path(name) if Path(name).is_file() else folder / f"{name}.safetensors"
    return open_estimator(path, assets, device, name, folder=folder)


def open_detector(
    assets: HandAssets,
    folder: Path = WEIGHTS,
    landmarker: str | os.PathLike | None = None,
    source: str = DETECTOR,
    device: torch.device | str = "cpu",
    flat: bool = True,
) -> PhotoEstimator:
    """A detector's hands and keypoints, and the hand model fitted to them.

    Args:
        folder: of the shipped weights; flat: see `KeypointEstimator`; others, and what is raised: as of `open_finder`.
    """
    population = shipped_population(assets, folder / SHIPPED_PRIOR.name)
    finder = open_finder(source, landmarker, folder, device)
    limits = {"max_misfit": MAX_MISFIT_OF_OWN, "min_side": MIN_SIDE_OF_OWN} if source == OWN else {}
    given = limits | beliefs_of(finder, assets)
    fit = KeypointEstimator(assets, population, landmarks_of(finder, assets), flat=flat, **given)
    return PhotoEstimator(fit, detector=finder, population=population)


def open_estimator(
    path: Path, assets: HandAssets, device: torch.device, model: str, *, folder: Path = WEIGHTS, **released: Any
) -> PhotoEstimator:
    """A network with what belongs to it: the keypoint network, and the population of the shipped ones.

    Args:
        path, assets, device, model, released: as of `read_network`; folder: of the shipped weights.

    Raises:
        FileNotFoundError: no such weights; lists those that are there. ValueError: it gives no mesh, or belongs to
            another hand.
    """
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.safetensors"))) or "no weights"
        raise FileNotFoundError(
            f"{path}: no such file; there are {DETECTOR}, {OWN} and the networks {there}; give a file of your own by "
            "its path (--checkpoint FILE)"
        )
    network, card, digest = read_network(path, device, assets, model, **released)
    if card.model == "pose_2d":
        raise ValueError(f"{path} is a pose_2d, which gives no mesh")
    population = shipped_population(assets, folder / SHIPPED_PRIOR.name) if path.parent == folder else None
    options = FitOptions() if population is None else with_population(FitOptions(), population, keep_depth=True)
    reader = open_reader(folder / "pose_2d.safetensors", device)
    estimator = HandEstimator(network, card, assets, reader, options, device)
    return PhotoEstimator(estimator, reader=reader, weights=path, digest=digest, population=population)
