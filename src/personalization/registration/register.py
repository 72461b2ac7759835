"""Camera-space registration: a root-relative mesh, 2D keypoints and the silhouette's reach to a position.

After the adaptive 2D-1D registration of CMR (Chen et al., "Camera-Space Hand Mesh Recovery via Semantic
Aggregation and Adaptive 2D-1D Registration", CVPR 2021, the section of that name): first the joints of the mesh
are aligned with the 2D keypoints, then the ends of the silhouette's projections on several lines with those of the
mesh, terms that cannot be trusted being left out. What follows keeps that plan but not its means. The
start is the least median over all pairs of keypoints, so that outliers cannot spoil it; "adaptive" is a robust
loss whose scale, for keypoints and for ends apart, is measured on each problem's own residuals, so that
good silhouettes outvote noisy keypoints and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from src.personalization.fitting.fit import reprojection_rmse
from src.personalization.fitting.translation import wrist_at_depth
from src.personalization.registration.least_median_of_squares import (
    RAYLEIGH_MEDIAN,
    least_median_start,
    weighted_median,
)
from src.personalization.registration.problem import OUTLIER, MeshObservations, RegistrationProblem, extent_gaps
from src.personalization.registration.silhouette import directions, silhouette_extents
from src.personalization.solver.levenberg_marquardt import LMOptions, minimise
from src.personalization.solver.status import Status, in_range, usable
from src.personalization.terms.inputs import check_frames

#: Median of a Gaussian's absolute value to its standard deviation.
GAUSS_MEDIAN = 0.6745
#: Of `register_mesh`'s arguments, behind the batch; None: any length.
_SHAPES: dict[str, tuple[int | None, ...]] = {
    "vertices": (None, 3),
    "joints": (21, 3),
    "K": (3, 3),
    "keypoints": (21, 2),
    "confidence": (21,),
    "mask": (None, None),
    "extents": (None,),
}


#: Directions around the circle along which silhouettes are compared, twice the number of lines.
AXES = 24
#: Keypoints of this confidence or less do not count.
MIN_CONFIDENCE = 0.05
#: px, smallest noise believed of keypoints and of ends.
MIN_STD = 0.5
#: Standard deviations beyond which ends are distrusted where the mesh reaches beyond the silhouette, since an object
#: hides parts of a hand but nothing adds to it. With networks' keypoints and true meshes of the validation subject the
#: mean error was 16.5 mm at 3, 12.0 at 2, 10.2 at 1.5 (``benchmarks/studies/registration.py --hidden``).
HIDDEN = 1.5
#: Times that the noise is measured and the position found again; meshes solved together, so that memory is bounded.
ROUNDS, CHUNK = 3, 256
LM = LMOptions(max_steps=30, tolerance=1e-8, relative_tolerance=1e-10)


@dataclass
class Registration:
    """B positions; every number is finite, whatever the status.

    Attributes:
        transl: (B,3) m, to be added to the root-relative mesh; where not `status.usable`, a guess on the ray of the
            keypoints' mean (or of the principal point).
        status: (B,) int64 of `Status`.
        reprojection_px: (B,) root mean square over the inliers, weighted by confidence; zero without any.
        inliers: (B,21) bool, keypoints that were believed.
        keypoint_std_px, extent_std_px: (B,) noise of keypoints and ends as measured; the second zero without ends.
        extents_used: (B,) int64, ends of the silhouette that were believed.
    """

    transl: torch.Tensor
    status: torch.Tensor
    reprojection_px: torch.Tensor
    inliers: torch.Tensor
    keypoint_std_px: torch.Tensor
    extent_std_px: torch.Tensor
    extents_used: torch.Tensor


def register_mesh(
    vertices: torch.Tensor,
    joints: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    *,
    mask_to_image: torch.Tensor | None = None,
    extents: torch.Tensor | None = None,
    hidden: float = HIDDEN,
) -> Registration:
    """Find where root-relative meshes are in the camera frame. No mesh can influence another.

    Args:
        vertices: (B,V,3) m, relative to any root, axes of the camera; joints: (B,21,3) of the same, standard order.
        K: (B,3,3) px; keypoints: (B,21,2) px of the image that K belongs to.
        confidence: (B,21) in [0,1], zero where unseen; None: all one.
        mask: (B,H,W) bool or probability, silhouette of the hand; None: keypoints alone. Parts of the hand that
            an object hides shorten it: such ends stand out and are distrusted, up to about half of them.
        mask_to_image: (B,2,3) or (2,3) affine from mask px to the keypoints' image; None: the same pixels.
        extents: (B,D) px, reach along `silhouette.directions` (D), NaN where unknown, instead of a mask.
        hidden: see `HIDDEN`.

    Returns:
        `Registration` in the vertices' dtype, on their device. Computed in float64.

    Raises:
        ValueError: both mask and extents, or shapes that do not fit.
    """
    given = {"vertices": vertices, "joints": joints, "K": K, "keypoints": keypoints, "confidence": confidence}
    _check_shapes(len(vertices), {**given, "mask": mask, "extents": extents})
    device, batch = vertices.device, len(vertices)
    if mask is not None:
        axes = directions(AXES, device=device)
        affine = None if mask_to_image is None else mask_to_image.to(device)
        extents = silhouette_extents(mask, axes, affine)
    else:
        axes = directions(AXES if extents is None else extents.shape[1], device=device)
    if extents is None:
        extents = axes.new_full((batch, len(axes)), torch.nan)
    parts = []
    for start in range(0, max(batch, 1), CHUNK):
        rows = slice(start, start + CHUNK)
        own = (None if value is None else value[rows].to(device).double() for value in (*given.values(), extents))
        parts.append(_register(*own, axes, hidden))
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in Registration.__dataclass_fields__}
    return Registration(**{k: v.to(vertices.dtype) if v.is_floating_point() else v for k, v in joined.items()})


def _register(
    vertices: torch.Tensor,
    joints: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None,
    extents: torch.Tensor,
    axes: torch.Tensor,
    hidden: float,
) -> Registration:
    # A mesh that is not finite counts as a bad prediction.
    finite = torch.isfinite(vertices).flatten(1).all(dim=1) & torch.isfinite(joints).flatten(1).all(dim=1)
    pose = torch.eye(3, dtype=vertices.dtype, device=vertices.device).expand(len(vertices), 16, 3, 3)
    betas = torch.where(finite[:, None], 0.0, torch.nan).to(vertices).expand(-1, 10)
    inputs = check_frames(pose, betas, K, keypoints, confidence, MIN_CONFIDENCE)
    vertices, joints = (torch.where(finite[:, None, None], value, 0.0) for value in (vertices, joints))
    start, middle, placed = least_median_start(joints, inputs.K, inputs.keypoints, inputs.confidence)
    guess = wrist_at_depth(inputs.middle, inputs.K)
    position = torch.where(placed[:, None], start, guess)
    known = torch.isfinite(extents) & (inputs.good & placed)[:, None]
    seen = MeshObservations(
        joints,
        vertices,
        inputs.K,
        inputs.keypoints,
        inputs.confidence,
        torch.where(known, extents, 0.0),
        torch.zeros_like(extents),
        axes,
        hidden,
    )
    # Two of 21 points fit their own start exactly, so its median is a little small: Rousseeuw's factor.
    count = (inputs.confidence > 0).sum(dim=1)
    keypoint_std = torch.where(placed, middle, 0.0) / RAYLEIGH_MEDIAN * (1 + 5 / (count - 1).clamp_min(1))
    extent_std = torch.zeros_like(keypoint_std)
    status = inputs.status
    for turn in range(ROUNDS):
        keypoint_std = keypoint_std.clamp_min(MIN_STD)
        ends = known if turn > 0 else torch.zeros_like(known)  # the first round is the 2D step
        seen = replace(
            seen,
            keypoint_weights=inputs.confidence / keypoint_std[:, None] ** 2,
            extent_weights=torch.where(ends, extent_std[:, None].clamp_min(MIN_STD) ** -2, 0.0),
        )
        result = minimise(RegistrationProblem(seen), {"position": position}, LM)
        position, status = result.state["position"], result.status
        image = (joints + position[:, None]) @ inputs.K.mT
        distance = (image[..., :2] / image[..., 2:].clamp_min(1e-3) - inputs.keypoints).norm(dim=-1)
        keypoint_std = _spread(distance, inputs.confidence, RAYLEIGH_MEDIAN)
        gap = extent_gaps(replace(seen, extent_weights=known.double()), position)[0]
        extent_std = _spread(gap.abs(), known.double(), GAUSS_MEDIAN)
    keypoint_std, extent_std = keypoint_std.clamp_min(MIN_STD), extent_std.clamp_min(MIN_STD)
    status = torch.where(placed, status, torch.full_like(status, int(Status.BEHIND_CAMERA)))
    status = torch.where(placed & usable(status) & ~in_range(position), int(Status.OUT_OF_RANGE), status)
    status = torch.where(inputs.good, status, inputs.status)
    fine = usable(status)
    position = torch.where(fine[:, None], position, guess)
    inliers = (distance < OUTLIER * keypoint_std[:, None]) & (inputs.confidence > 0) & fine[:, None]
    limit = torch.where(gap > 0, hidden, OUTLIER) * extent_std[:, None]
    believed = known & (gap.abs() < limit) & fine[:, None]
    return Registration(
        transl=position,
        status=status,
        reprojection_px=reprojection_rmse(
            joints + position[:, None], inputs.K, inputs.keypoints, inputs.confidence * inliers
        ),
        inliers=inliers,
        keypoint_std_px=keypoint_std,
        extent_std_px=torch.where(known.any(dim=1), extent_std, 0.0),
        extents_used=believed.sum(dim=1),
    )


def _check_shapes(batch: int, given: dict[str, torch.Tensor | None]) -> None:
    if given["mask"] is not None and given["extents"] is not None:
        raise ValueError("give the silhouette's mask or its extents, not both")
    for name, value in given.items():
        if value is None:
            continue
        found, shape = tuple(value.shape), (batch, *_SHAPES[name])
        if len(found) != len(shape) or any(want not in (None, got) for want, got in zip(shape, found, strict=True)):
            raise ValueError(f"{name} has shape {found}; it must be {shape} (None: any length)")


def _spread(lengths: torch.Tensor, weights: torch.Tensor, factor: float) -> torch.Tensor:
    """Standard deviation (B,) from the weighted median of lengths (B,n); zero where nothing counts."""
    middle = weighted_median(lengths, weights)
    return torch.where(torch.isfinite(middle), middle, 0.0) / factor
