"""``run.py --phase demo --images DIR``: the hand in each of a person's own pictures, to look at and to go on with."""

from __future__ import annotations

import argparse
import errno
import itertools
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from src.photos.api import PhotoEstimator
from src.photos.gallery import PAGE, Gallery
from src.photos.image import UnusableImage, list_photos, read_photo, shown_name
from src.photos.setup import camera_poses, open_tools, stopped_by_signals
from utils.file_lock import locked
from utils.files import writable_folder

logger = logging.getLogger(__name__)

#: Held while the demo works in its output folder: two at once would overwrite each other's files.
LOCK = ".demo.lock"

#: Errors of writing that the next picture would meet as well.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def _numbers_fall(names: list[str]) -> bool:
    """Of names that are alike but for their numbers, some come before ones with smaller numbers, as 10 before 2."""
    last: dict[str, list[int]] = {}
    for name in names:
        alike, numbers = re.sub(r"\d+", "#", name), [int(number) for number in re.findall(r"\d+", name)]
        if numbers < last.get(alike, []):
            return True
        last[alike] = numbers
    return False


def image_demo(args: argparse.Namespace) -> Gallery:
    """Reconstruct the hands in every image, in sorted order, surest first; what is refused is listed with the reason.

    Leaves in ``--output`` for each image ``<name>_plot.jpg``, ``<name>_mesh.ply`` and ``.glb``; ``index.html``, which
    needs no network, and ``predictions.json``. Both list what was done so far whenever it is stopped.

    Raises:
        FileNotFoundError, ValueError, OSError: options that make no sense for any image, missing weights, an output
            that cannot be written, or that another demo is writing to.
        RuntimeError: every image failed for another reason than that no hand is in it.
    """
    photos = list_photos(args.images)
    output = writable_folder(args.output)
    if output.resolve() == photos[0][1].parent.resolve():  # a plot might replace a picture
        raise ValueError(f"--output {output}: is where the pictures are; choose another folder")
    poses = camera_poses(args, lambda: len(photos), "pictures, in the order of their names")
    if poses and _numbers_fall(names := [path.name for _, path in photos]):
        raise ValueError(
            f"--world_from_camera: whose pose is whose? Pictures come in the order of their names' letters "
            f"({', '.join(names[:3])}, ...), not of their numbers; give all numbers as many digits"
        )
    tools = open_tools(args)
    errors: list[Exception] = []
    title = f"Hands in {shown_name(Path(args.images)) or args.images}"
    with stopped_by_signals(), locked(output / LOCK), open_gallery(tools, output, title) as gallery:
        each = zip(photos, poses or itertools.repeat(None))
        for (name, path), pose in tqdm(each, total=len(photos), desc="images", unit="image", disable=None):
            try:
                photo = replace(read_photo(path, name), camera_pose=pose)
                hands, refused = tools.hands(photo)
                if hands:
                    gallery.add(name, shown_name(path), photo.image, *hands, refused=refused)
                else:
                    gallery.fail(name, shown_name(path), refused[0].reason, refused=refused)
            except UnusableImage as error:
                gallery.fail(name, shown_name(path), str(error))
            except Exception as error:  # one picture stops no other, whatever its decoder, fit or drawing raised
                if isinstance(error, OSError) and error.errno in _NO_ROOM:
                    raise
                logger.debug("%s", path, exc_info=True)
                gallery.fail(name, shown_name(path), f"{type(error).__name__}: {error}", "failed")
                errors.append(error)
    with_hand, without = gallery.counts
    if errors and not with_hand and len(errors) == without:
        raise RuntimeError(f"none of {without} images could be worked on: {errors[0]}") from errors[0]
    if with_hand:
        logger.info("%d images with a hand, %d without; look at %s", with_hand, without, output / PAGE)
    else:
        logger.warning("no usable hand in any of %d images; %s says why of each", without, output / PAGE)
    return gallery


def open_gallery(tools: PhotoEstimator, output: Path, title: str) -> Gallery:
    """An empty gallery that says which network and which hand model were used."""
    card, assets, identity = tools.estimator.card, tools.assets, tools.identity
    whose = "each image's own" if identity is None else f"identity {identity.source}"
    if identity is None and card.model.endswith("_identity"):
        whose = "mean shape"
    network = card.model if tools.weights is None else f"{card.model} ({tools.weights})"
    lead = f"{network}, hand model {assets.name}; shape: {whose}. Trained on {tools.trained_on}."
    return Gallery(output, title, lead, describe(tools))


def describe(tools: PhotoEstimator) -> dict[str, Any]:
    """Network, hand model and identity, for predictions.json."""
    card, identity = tools.estimator.card, tools.identity
    weights = None if tools.weights is None else str(tools.weights)
    return {
        "model": {
            "name": card.model,
            "recipe": card.recipe,
            "weights": weights,
            "hash": tools.digest,
            "trained_on": tools.trained_on,
        },
        "hand_model": {"name": tools.assets.name, "hash": tools.assets.hash},
        "identity": None
        if identity is None
        else {
            "file": identity.source,
            "hand_length_mm": round(identity.hand_length_mm, 2),
            "hand_length_std_mm": identity.hand_length_std_mm,
        },
    }
