"""One hand in one picture: network, then fitting (pose and shape) or registration (mesh) to the 2D keypoints.

Everything here is in the right-hand convention: pictures of left hands come in mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from datasets.crop_placement import whole_image_box
from datasets.image_crop import crop_image
from src.engine.checkpoint import ModelCard
from src.evaluation.shape import bone_lengths
from src.models.mesh_joints import mesh_hand, mesh_joints
from src.personalization.fitting.fit import FitOptions, fit_frames
from src.personalization.registration.register import register_mesh
from src.personalization.solver.status import Status, usable
from template.kinematics import JointsModel
from src.photos.image import UnusableImage
from src.photos.result import HandLength, HandResult
from src.photos.search import KeypointReader, limited, network_input
from src.photos.shape_filter import ShapeBelief
from template import HandAssets, HandModel
from utils.camera import crop_affine, invert_affine, square_box, transform_intrinsics, transform_points
from utils.joints import BONES, FINGERS

#: Places in BONES of the bones from the wrist to the middle fingertip.
_MIDDLE_BONES = [4 * FINGERS.index("middle") + part for part in range(4)]
assert [BONES[place] for place in _MIDDLE_BONES] == [(0, 9), (9, 10), (10, 11), (11, 12)]


@dataclass(frozen=True)
class Seen:
    """2D keypoints (21,2), px of the picture, standard order; confidence (21,) in [0,1]; who found them.

    world: (21,3) m, that detector's own guess in three dimensions (`detection.Detection.world`), or None.
    """

    keypoints: np.ndarray
    confidence: np.ndarray
    source: str
    world: np.ndarray | None = None


class HandEstimator:
    """A network and what comes behind it.

    Args:
        network, card: of `load_network`; returns ``pose`` (and betas) or ``vertices``.
        assets: right hand in use.
        reader: keypoint network for networks of pose and shape; None: the network's own keypoints.
        options: of the fitting; None: its defaults.
        device: where the network is.
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        assets: HandAssets,
        reader: KeypointReader | None = None,
        options: FitOptions | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network, self.card, self.assets, self.reader = network, card, assets, reader
        self.options, self.device = options or FitOptions(), torch.device(device)
        self.hand, self.joints_model = HandModel(assets), JointsModel(assets, dtype=torch.float32)
        self.regressor = mesh_hand(assets, "freihand" if card.crop == "image" else "dex_ycb")

    @torch.no_grad()
    def estimate(
        self,
        image: np.ndarray,
        K: np.ndarray,
        box: np.ndarray,
        belief: ShapeBelief,
        seen: Seen | None = None,
        before: HandResult | None = None,
    ) -> HandResult:
        """Reconstruct the hand in a box.

        Args:
            image: (H,W,3) uint8 RGB; K: (3,3) px of it; box: (3,) tight square of the hand, px.
            belief: shape of this person so far; it sees what the network says of this picture.
            seen: keypoints to fit to; None: those of ``reader``, or the network's.
            before: the same hand in the previous frame, to start the fit from.

        Raises:
            UnusableImage: there is no hand that the keypoints would fit; it says why.
        """
        window = self.window(image, box)
        size = self.card.input_size
        affine = crop_affine(window, size)
        crop_K = torch.as_tensor(transform_intrinsics(K, affine)[None], dtype=torch.float32, device=self.device)
        betas = torch.as_tensor(belief.betas[None], dtype=torch.float32, device=self.device)
        output = self.network(network_input([crop_image(image, window, size)], self.device), betas=betas, K=crop_K)
        to_image = invert_affine(affine)
        seen = seen or self.keypoints(image, box, output, to_image)
        if self.card.crop == "image":
            box = limited(square_box(seen.keypoints, 1.0), image)
        if "vertices" in output:
            return self._register(image, K, box, output, to_image, seen, belief)
        return self._fit(image, K, box, output, seen, belief, before)

    def window(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Square (3,) that the network looks at."""
        if self.card.crop == "image":
            whole = whole_image_box(image.shape[1], image.shape[0])
            return whole * [1, 1, self.card.crop_scale / 2]
        return np.asarray(box) * [1, 1, self.card.crop_scale]

    def keypoints(
        self, image: np.ndarray, box: np.ndarray, output: dict[str, torch.Tensor], to_image: np.ndarray
    ) -> Seen:
        """Of the reader for networks of pose and shape, else of the network's own heat maps."""
        own = output.get("keypoints_2d")
        if self.reader is not None and ("pose" in output or own is None):
            keypoints, confidence = self.reader.read(image, np.asarray(box)[None])
            return Seen(keypoints[0], confidence[0], self.reader.card.model)
        if own is None:
            raise ValueError(f"{self.card.model} gives no 2D keypoints, and weights/pose_2d.safetensors is missing")
        confidence = output["keypoint_confidence"][0].float().cpu().numpy()
        return Seen(transform_points(own[0].double().cpu().numpy(), to_image), confidence, self.card.model)

    def _fit(
        self,
        image: np.ndarray,
        K: np.ndarray,
        box: np.ndarray,
        output: dict[str, torch.Tensor],
        seen: Seen,
        belief: ShapeBelief,
        before: HandResult | None,
    ) -> HandResult:
        betas = torch.as_tensor(belief.see(output["betas"][0].float().cpu().numpy())[None], dtype=torch.float32)
        start = None
        if before is not None and before.pose is not None:
            start = tuple(rows_of(before.pose, before.transl))
        fitted = fit_frames(
            self.joints_model, output["pose"].float().cpu(), betas, *rows_of(K, seen.keypoints, seen.confidence),
            options=self.options, start=start,
        )
        check_status(fitted.status, seen)
        posed = self.hand(fitted.pose, betas, fitted.transl)
        return HandResult(
            image.shape[1], K, np.asarray(box), seen.keypoints, seen.confidence, posed.vertices[0].numpy(),
            posed.joints[0].numpy(), self.assets.faces, float(fitted.reprojection_px[0]), fitted.pose[0].numpy(),
            fitted.transl[0].numpy(), betas[0].numpy(), belief.length,
            notes={"keypoints_from": seen.source, "fit_steps": int(fitted.steps[0])},
        )

    def _register(
        self,
        image: np.ndarray,
        K: np.ndarray,
        box: np.ndarray,
        output: dict[str, torch.Tensor],
        to_image: np.ndarray,
        seen: Seen,
        belief: ShapeBelief,
    ) -> HandResult:
        vertices = output["vertices"].float().cpu()
        joints = mesh_joints(vertices, self.regressor)
        mask, mask_to_image = self._mask(output, to_image)
        placed = register_mesh(
            vertices, joints, *rows_of(K, seen.keypoints, seen.confidence),
            None if mask is None else torch.as_tensor(mask[None]),
            mask_to_image=None if mask is None else torch.as_tensor(mask_to_image),
        )
        check_status(placed.status, seen)
        joints, vertices = ((part + placed.transl[:, None])[0].numpy() for part in (joints, vertices))
        knows_shape = self.card.model.endswith("_identity")
        length = belief.length
        if not knows_shape:
            length = HandLength(1000 * float(bone_lengths(joints)[_MIDDLE_BONES].sum()), None, "bones of this mesh")
        return HandResult(
            image.shape[1], K, np.asarray(box), seen.keypoints, seen.confidence, vertices, joints, self.assets.faces,
            float(placed.reprojection_px[0]), betas=belief.betas.astype(np.float32) if knows_shape else None,
            length=length, mask=mask, mask_to_image=mask_to_image,
            notes={"keypoints_from": seen.source, "keypoints_believed": int(placed.inliers[0].sum())},
        )

    def _mask(
        self, output: dict[str, torch.Tensor], to_image: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Silhouette (h,w) in 0..1 and the affine (2,3) from its pixels to the picture's, if the network has one."""
        if output.get("mask") is None:
            return None, None
        mask = output["mask"][0, 0].float().cpu().numpy()
        step = self.card.input_size / mask.shape[-1]  # map pixels are areas of the input
        to_input = np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2], [0, 0, 1]])
        return mask, to_image @ to_input


def rows_of(*arrays: np.ndarray, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Each array as a batch of one."""
    return [torch.as_tensor(np.asarray(array)[None], dtype=dtype) for array in arrays]


def check_status(status: torch.Tensor, seen: Seen) -> None:
    """Raise UnusableImage, with the reason, unless the one problem of ``status`` (1,) has a result."""
    if not bool(usable(status)[0]):
        reason = Status(int(status[0])).name.lower().replace("_", " ")
        raise UnusableImage(f"no usable hand: {reason} (mean confidence of the keypoints {seen.confidence.mean():.2f})")
