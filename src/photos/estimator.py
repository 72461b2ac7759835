"""One hand in one picture: network, then fitting (pose and shape) or registration (mesh) to the 2D keypoints.

Everything here is in the right-hand convention: pictures of left hands come in mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import nn

from datasets.image_crop import crop_image, whole_image_box
from src.engine.checkpoint import ModelCard
from src.engine.networks import for_inference, is_told_shape
from src.evaluation.shape import bone_lengths
from src.models.mesh_joints import mesh_hand, mesh_joints
from src.personalization.fitting.fit import FitOptions, FitResult, fit_frames
from src.personalization.registration.register import register_mesh
from src.photos.detector.refusal import MAX_MISFIT_OF_NETWORKS, check_depth, check_misfit, check_status
from src.photos.detector.search import KeypointReader, limited, network_input
from src.photos.result import HandLength, Result, Sources
from src.photos.shape_filter import ShapeFilter
from template import HandAssets, HandModel
from template.kinematics import JointsModel
from utils.camera import crop_affine, invert_affine, mirror_points, square_box, transform_intrinsics, transform_points
from utils.joints import BONES, FINGERS

#: Places in BONES of the bones from the wrist to the middle fingertip.
_MIDDLE_BONES = [4 * FINGERS.index("middle") + part for part in range(4)]
assert [BONES[place] for place in _MIDDLE_BONES] == [(0, 9), (9, 10), (10, 11), (11, 12)]


@dataclass(frozen=True)
class Keypoints:
    """What was observed of a hand in 2D.

    points: (21,2) px of the picture, standard order; confidence: (21,) in [0,1]; source: who found them.
    world: (21,3) m, that detector's own guess in three dimensions, only_depths, and pose: as of `Detection`.
    side_score: in [0.5,1], how sure it is of the side; None: nobody said.
    """

    points: np.ndarray
    confidence: np.ndarray
    source: str
    world: np.ndarray | None = None
    side_score: float | None = None
    only_depths: bool = False
    pose: np.ndarray | None = None

    @property
    def size(self) -> float:
        """Larger side of their box, px."""
        return float(np.ptp(self.points, axis=0).max())

    def mirrored(self, width: int) -> Keypoints:
        """After the picture of ``width`` px was flipped left to right."""
        world = None if self.world is None else self.world * [-1.0, 1.0, 1.0]
        return replace(self, points=mirror_points(self.points, width), world=world)


@dataclass(frozen=True)
class HandInPicture:
    """A right hand that is to be reconstructed, and what is known of it.

    image: (H,W,3) uint8 RGB; K: (3,3) px of it; box: (3,) tight square of the hand, px.
    shape: of this person so far; it is updated with what this picture says by itself.
    keypoints: observed ones to fit to; None: the estimator's own.
    before: the same hand in the previous frame, to start the fit from.
    """

    image: np.ndarray
    K: np.ndarray
    box: np.ndarray
    shape: ShapeFilter
    keypoints: Keypoints | None = None
    before: Result | None = None


class Estimator(Protocol):
    """What gives a hand in a box: a network with fitting behind it, or fitting alone.

    Attributes:
        card: what it is called; assets: right hand in use.
        joints_model, frame_options: what its fits minimise, for those over time.
    """

    card: ModelCard
    assets: HandAssets
    joints_model: JointsModel
    frame_options: FitOptions

    def estimate(self, seen: HandInPicture) -> Result:
        """Reconstruct a hand.

        Raises:
            UnusableImage: there is no hand that the keypoints would fit; it says why.
        """


class HandEstimator:
    """A network and what comes behind it.

    Args:
        network, card: of `load_network`; returns ``pose`` (and betas) or ``vertices``.
        reader: keypoint network for networks of pose and shape; None: the network's own keypoints.
        options: of the fitting; None: its defaults.
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
        self.network, self.card, self.assets, self.reader = for_inference(network), card, assets, reader
        self.frame_options, self.device = options or FitOptions(), torch.device(device)
        self.hand = HandModel(assets)
        self.joints_model = JointsModel(assets, dtype=torch.float32)
        self.regressor = mesh_hand(assets, "freihand" if card.crop == "image" else "dex_ycb")

    @torch.no_grad()
    def estimate(self, seen: HandInPicture) -> Result:
        """See `Estimator.estimate`; without keypoints those of ``reader`` or the network's own are taken."""
        window, size = self.window(seen), self.card.input_size
        affine = crop_affine(window, size)
        crop_K = torch.as_tensor(transform_intrinsics(seen.K, affine)[None], dtype=torch.float32, device=self.device)
        betas = torch.as_tensor(seen.shape.betas[None], dtype=torch.float32, device=self.device)
        view = network_input([crop_image(seen.image, window, size)], self.device)
        output = self.network(view, betas=betas, K=crop_K)
        to_image = invert_affine(affine)
        keypoints = seen.keypoints or self.keypoints(seen, output, to_image)
        if self.card.crop == "image":
            seen = replace(seen, box=limited(square_box(keypoints.points, 1.0), seen.image))
        if "vertices" in output:
            result = self._register(seen, keypoints, output, to_image)
            if hasattr(self.network, "attention"):  # of METRO
                attention = self.network.attention(view, betas=betas, K=crop_K)
                result = replace(result, attention=attention[0].float().cpu().numpy())
        else:
            result = self._fit(seen, keypoints, output)
        misfit = check_misfit(check_depth(result).reprojection_px, keypoints.size, MAX_MISFIT_OF_NETWORKS)
        return replace(result, certainty={"misfit": misfit})

    def window(self, seen: HandInPicture) -> np.ndarray:
        """Square (3,) that the network looks at."""
        if self.card.crop == "image":
            whole = whole_image_box(seen.image.shape[1], seen.image.shape[0])
            return whole * [1, 1, self.card.crop_scale / 2]
        return np.asarray(seen.box) * [1, 1, self.card.crop_scale]

    def keypoints(self, seen: HandInPicture, output: dict[str, torch.Tensor], to_image: np.ndarray) -> Keypoints:
        """Of the reader for networks of pose and shape, else of the network's own heat maps."""
        predicted = output.get("keypoints_2d")
        if self.reader is not None and ("pose" in output or predicted is None):
            points, confidence = self.reader.read(seen.image, np.asarray(seen.box)[None])
            return Keypoints(points[0], confidence[0], self.reader.card.model)
        if predicted is None:
            raise ValueError(f"{self.card.model} gives no 2D keypoints, and weights/pose_2d.safetensors is missing")
        confidence = output["keypoint_confidence"][0].float().cpu().numpy()
        return Keypoints(transform_points(predicted[0].double().cpu().numpy(), to_image), confidence, self.card.model)

    def _fit(self, seen: HandInPicture, keypoints: Keypoints, output: dict[str, torch.Tensor]) -> Result:
        predicted, shape, before = None, seen.shape, seen.before
        if not is_told_shape(self.card):  # else the network only repeats what it was told
            predicted = output["betas"][0].float().cpu().numpy()
            shape.update(predicted)
        betas = torch.as_tensor(shape.betas[None], dtype=torch.float32)
        start = None
        if before is not None and before.pose is not None and before.transl is not None:
            start = tuple(rows_of(before.pose, before.transl))
        K_row, points, confidence = rows_of(seen.K, keypoints.points, keypoints.confidence)
        pose = output["pose"].float().cpu()
        fitted = fit_frames(self.joints_model, pose, betas, K_row, points, confidence, self.frame_options, start)
        result = fitted_result(seen, keypoints, self.hand, fitted, {"fit_steps": int(fitted.steps[0])})
        return replace(result, predicted_pose=pose[0].numpy(), predicted_betas=predicted)

    def _register(
        self, seen: HandInPicture, keypoints: Keypoints, output: dict[str, torch.Tensor], to_image: np.ndarray
    ) -> Result:
        mesh = output["vertices"].float().cpu()
        mesh_points = mesh_joints(mesh, self.regressor)
        mask, mask_to_image = self._mask(output, to_image)
        K_row, points, confidence = rows_of(seen.K, keypoints.points, keypoints.confidence)
        placed = register_mesh(
            mesh,
            mesh_points,
            K_row,
            points,
            confidence,
            None if mask is None else torch.as_tensor(mask[None]),
            mask_to_image=None if mask is None else torch.as_tensor(mask_to_image),
        )
        check_status(placed.status, keypoints)
        joints, vertices = ((part + placed.transl[:, None])[0].numpy() for part in (mesh_points, mesh))
        knows_shape, length = is_told_shape(self.card), seen.shape.length
        if not knows_shape:
            length = HandLength(1000 * float(bone_lengths(joints)[_MIDDLE_BONES].sum()), None, "bones of this mesh")
        return Result(
            seen.image.shape[1],
            seen.K,
            np.asarray(seen.box),
            keypoints.points,
            keypoints.confidence,
            vertices,
            joints,
            self.assets,
            float(placed.reprojection_px[0]),
            betas=seen.shape.betas.astype(np.float32) if knows_shape else None,
            length=length,
            mask=mask,
            mask_to_image=mask_to_image,
            sources=Sources(keypoints=keypoints.source),
            notes={"keypoints_believed": int(placed.inliers[0].sum())},
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
    return [torch.as_tensor(np.asarray(array)[None], dtype=dtype) for array in arrays]


def fitted_result(
    seen: HandInPicture, keypoints: Keypoints, hand: HandModel, fit: FitResult, notes: dict[str, int]
) -> Result:
    """The `Result` of a fit of one hand to keypoints, posed by ``hand``.

    Raises:
        UnusableImage: the fit has no result, or none that a camera can see.
    """
    check_status(fit.status, keypoints)
    posed = hand(fit.pose, fit.betas, fit.transl)
    vertices, joints, pose, transl, betas = (
        value[0].numpy() for value in (posed.vertices, posed.joints, fit.pose, fit.transl, fit.betas)
    )
    result = Result(
        seen.image.shape[1], seen.K, np.asarray(seen.box), keypoints.points, keypoints.confidence, vertices, joints,
        hand.assets, float(fit.reprojection_px[0]), pose, transl, betas, seen.shape.length,
        sources=Sources(keypoints=keypoints.source), notes=notes, world=keypoints.world,
    )  # fmt: skip
    return check_depth(result)
