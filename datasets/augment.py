"""From batches of samples to network inputs: image, intrinsics, points and pose moved together, exactly; and
random brightness, contrast, saturation, hue and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

__all__ = ["AugmentConfig", "prepare_batch"]

Batch = dict[str, torch.Tensor]
COLOUR_SPACES = ("linear", "hsv")
#: Weights of red, green and blue in the luma of ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)
#: An image's noise begins this many numbers after that of the one before.
_NOISE_STEP = 61


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the random changes; the defaults change nothing. All draws are uniform.

    Attributes:
        rotation_deg: largest in-plane rotation about the camera's optical axis, degrees (180: any).
        scale: factors (low, high) on the crop's side; the draw is uniform in the logarithm.
        shift: largest shift of the crop, as a fraction of its side, in x and in y.
        brightness: largest offset, with colours in [0, 1].
        contrast: factors (low, high) on all colours.
        saturation: factors (low, high).
        hue_deg: largest turn of the hue, degrees.
        noise: largest standard deviation of Gaussian pixel noise, with colours in [0, 1].
        probability: with which each photometric change happens to an image. The geometric ones always happen.
        colour_space: saturation and hue as one matrix a image ("linear", quick) or in HSV ("hsv").
    """

    rotation_deg: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    brightness: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    saturation: tuple[float, float] = (1.0, 1.0)
    hue_deg: float = 0.0
    noise: float = 0.0
    probability: float = 0.5
    colour_space: str = "linear"

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: naming the value that makes no sense.
        """
        for name in ("scale", "contrast", "saturation"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is ({low}, {high}); it must be (low, high) with 0 < low <= high")
        for name in ("rotation_deg", "shift", "brightness", "hue_deg", "noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is {self.probability}; it must lie in [0, 1]")
        if self.colour_space not in COLOUR_SPACES:
            raise ValueError(f"colour_space is {self.colour_space!r}; choose one of {', '.join(COLOUR_SPACES)}")

    @classmethod
    def paper(cls) -> AugmentConfig:
        """What the paper's code did, photometric only, but clipped to the valid range (docs/facts.md 7.1, 8.13)."""
        return cls(brightness=32 / 255, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue_deg=18.0, colour_space="hsv")

    @classmethod
    def fair(cls) -> AugmentConfig:
        """Geometric and photometric: any in-plane rotation, a jittered crop, milder colours, some noise."""
        return cls(
            rotation_deg=180.0,
            scale=(0.9, 1.1),
            shift=0.05,
            brightness=0.12,
            contrast=(0.7, 1.3),
            saturation=(0.6, 1.4),
            hue_deg=12.0,
            noise=0.03,
        )

    @property
    def is_geometric(self) -> bool:
        """Whether anything moves."""
        return self.rotation_deg > 0 or self.scale != (1.0, 1.0) or self.shift > 0

    @property
    def is_photometric(self) -> bool:
        """Whether any colour changes."""
        changes = self.brightness or self.hue_deg or self.noise
        return self.probability > 0 and (bool(changes) or (self.contrast, self.saturation) != ((1.0, 1.0), (1.0, 1.0)))


@torch.no_grad()
def prepare_batch(
    batch: Batch,
    input_size: int,
    device: torch.device | str = "cpu",
    augment: AugmentConfig | None = None,
    generator: torch.Generator | None = None,
    crop_scale: float = 1.5,
    follow_joints: bool = True,
) -> Batch:
    """Make a batch of samples ready for a network.

    The network sees a square of ``crop_scale`` x the larger side of the box of the 2D joints, resampled to
    ``input_size``. An augmented batch is what the camera would have seen had it been turned about its optical
    axis by an angle theta: pixels move by the homography K Rz(theta) K^-1 (here an affine), points by Rz. The
    crop rule is then applied to the turned joints, and its square jittered in size and place. Where the
    sample's crop (twice the box) ends, the input is black.

    Args:
        batch: collated samples (`datasets.sample`), uint8 images (B, C, C, 3).
        input_size: side of the network's input, pixels.
        device: where the result lives; everything is computed there.
        augment: what to draw; None or a config that changes nothing: no change.
        generator: of all random numbers; draws are made on its device, so a CPU generator gives the same
            augmentation on any device. None: PyTorch's default CPU one.
        crop_scale: side of the crop over the larger side of the joints' box, in (0, 2].
        follow_joints: False: an augmented view is placed by the sample's crop, not by the turned joints, as it must
            be where crops show whole images.

    Returns:
        A new dict with the batch's keys on ``device``; changed are ``image`` (B, 3, input_size, input_size)
        float32 in [-1, 1], channels last in memory; ``mask`` (B, 1, input_size, input_size) float32 in [0, 1];
        ``K``, ``keypoints_2d`` for px of that input; ``crop_to_image`` from px of the input to px of the full image
        **as it is, not turned**; and, turned, ``joints``, ``label_joints``, ``vertices``, ``transl`` and the root of
        ``pose``, which agree with ``K``. ``K_image`` belongs to the full image and stays. Added is
        ``view_rotation`` (B, 3, 3), the Rz that was applied (identity if none): ``view_rotation^T @ point`` is back
        in the full image's camera frame. If the sample's crop at the wanted scale has ``input_size`` pixels already,
        the image is an exact cut of it, (x / 255 - 0.5) / 0.5 bit by bit.

    Raises:
        ValueError: if ``crop_scale`` is not in (0, 2].
    """
    if not 0 < crop_scale <= 2:
        raise ValueError(f"crop_scale is {crop_scale}; it must lie in (0, 2]: samples show twice the joints' box")
    result = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
    crops = result["image"]
    crop_size = crops.shape[1]
    if augment is not None and augment.is_geometric:
        rotation, turn, boxes = _draw_view(result, augment, generator, crop_scale, follow_joints)
    else:
        rotation = torch.eye(3, dtype=torch.float64, device=crops.device).expand(len(crops), 3, 3)
        side = crop_size * crop_scale / 2
        boxes = rotation.new_tensor([(crop_size - 1) / 2, (crop_size - 1) / 2, side]).expand(len(crops), 3)
        turn = None
    zoom = _box_affine(boxes, input_size)
    move = zoom if turn is None else _compose(zoom, turn)
    # Samples a pixel and axis that the shrinking of a crop to the input needs.
    oversampling = max(1, round(crop_size * crop_scale / 2 / input_size))
    margin = (crop_size - input_size) / 2
    if turn is None and crop_size * crop_scale / 2 == input_size and margin == int(margin):
        inner = slice(int(margin), int(margin) + input_size)  # the centre needs no resampling
        image = crops[:, inner, inner].permute(0, 3, 1, 2)
    else:
        image = _resample(crops, move, input_size, oversampling)
    image = image / 255 if image.dtype == torch.uint8 else image.div_(255)
    if augment is not None and augment.is_photometric:
        image = change_colours(image, augment, generator)
    if "mask" in result:
        result["mask"] = _resample(result["mask"][..., None], move, input_size, oversampling).div_(255)
    result["image"] = image.sub_(0.5).div_(0.5).contiguous(memory_format=torch.channels_last)
    result["K"] = _as_matrix(zoom) @ result["K"].double()
    result["crop_to_image"] = _compose(result["crop_to_image"].double(), _invert(move))
    if "keypoints_2d" in result:
        result["keypoints_2d"] = _transform(move, result["keypoints_2d"].double())
    result["view_rotation"] = rotation
    if turn is not None:
        _turn_hand(result, rotation)
    return {key: value.float() if value.dtype == torch.float64 else value for key, value in result.items()}


def _draw_view(
    batch: Batch, config: AugmentConfig, generator: torch.Generator | None, crop_scale: float, follow_joints: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random rotations (B, 3, 3), the affines (B, 2, 3) K Rz K^-1 by which they move pixels, and the jittered boxes
    (B, 3) to show, in px of the crop after its turn."""
    count, crop_size = len(batch["image"]), batch["image"].shape[1]
    source = "cpu" if generator is None else generator.device
    uniform = torch.rand(4, count, generator=generator, device=source, dtype=torch.float64)
    uniform = uniform.to(batch["image"].device)
    angle = (2 * uniform[0] - 1) * math.radians(config.rotation_deg)  # positive turns x towards y
    cosine, sine, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rotation = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=1).view(-1, 3, 3)
    K = batch["K"].double()
    turn = (K @ rotation @ _inverse(K))[:, :2]
    points = _transform(turn, batch["keypoints_2d"].double())
    low, high = points.amin(dim=1), points.amax(dim=1)
    centre, side = (low + high) / 2, (high - low).amax(dim=1).clamp_min(1.0) * crop_scale
    follows = batch["valid"] if "valid" in batch else torch.ones_like(side, dtype=torch.bool)
    follows = follows & follow_joints  # other samples keep their own centre and size
    whole = torch.full_like(points[:, :1], (crop_size - 1) / 2)
    centre = torch.where(follows[:, None], centre, _transform(turn, whole)[:, 0])
    side = torch.where(follows, side, crop_size * crop_scale / 2)
    low_log, high_log = (math.log(factor) for factor in config.scale)
    side = side * torch.exp(low_log + (high_log - low_log) * uniform[1])
    centre = centre + (2 * uniform[2:].T - 1) * config.shift * side[:, None]
    return rotation, turn, torch.cat([centre, side[:, None]], dim=1)


def _turn_hand(batch: Batch, rotation: torch.Tensor) -> None:
    """Turn joints, vertices, root rotation and translation (in place in the dict) about the optical axis."""
    if "transl" in batch:  # MANO turns about the rest wrist J0, so transl' = R (transl + J0) - J0 (docs/facts.md 1.4)
        wrist = batch["joints"][:, 0].double()
        rest_wrist = wrist - batch["transl"].double()
        batch["transl"] = (rotation @ wrist[:, :, None])[:, :, 0] - rest_wrist
    for key in ("joints", "label_joints", "vertices"):
        if key in batch:
            batch[key] = batch[key] @ rotation.to(batch[key].dtype).transpose(1, 2)
    if "pose" in batch:
        root = rotation.to(batch["pose"].dtype) @ batch["pose"][:, 0]
        batch["pose"] = torch.cat([root[:, None], batch["pose"][:, 1:]], dim=1)


def _resample(crops: torch.Tensor, move: torch.Tensor, size: int, oversampling: int) -> torch.Tensor:
    """Images (B, 3, size, size) in [0, 255], moved by affines (B, 2, 3) from px of the crops (B, C, C, 3).

    Bilinear; when shrinking, ``oversampling`` x ``oversampling`` samples are averaged for each pixel.
    """
    crop_size = crops.shape[1]
    # Sample k of n inside pixel i lies at i + (k + 0.5) / n - 0.5.
    steps = torch.arange(size * oversampling, device=crops.device, dtype=torch.float64)
    steps = (steps + 0.5) / oversampling - 0.5
    back = _invert(move)
    # grid_sample with align_corners: -1 and 1 are the centres of the first and the last pixel.
    back = back * (2 / (crop_size - 1))
    back[:, :, 2] -= 1
    along_x = (back[:, :, 0, None] * steps).float()
    along_y = (back[:, :, 1, None] * steps + back[:, :, 2, None]).float()
    # As complex numbers x + iy the grid is one broadcast sum, several times quicker than affine_grid.
    columns, rows = (torch.complex(part[:, 0], part[:, 1]) for part in (along_x, along_y))
    grid = torch.view_as_real(columns[:, None, :] + rows[:, :, None])
    images = F.grid_sample(crops.permute(0, 3, 1, 2).float(), grid, padding_mode="zeros", align_corners=True)
    return images if oversampling == 1 else F.avg_pool2d(images, oversampling)


def _box_affine(boxes: torch.Tensor, size: int) -> torch.Tensor:
    """`utils.camera.crop_affine` for tensors: boxes (B, 3) -> (B, 2, 3)."""
    scale = size / boxes[:, 2]
    affine = boxes.new_zeros(len(boxes), 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = scale
    affine[:, :, 2] = (size - 1) / 2 - scale[:, None] * boxes[:, :2]
    return affine


def _as_matrix(affine: torch.Tensor) -> torch.Tensor:
    bottom = affine.new_tensor([[[0.0, 0.0, 1.0]]]).expand(len(affine), 1, 3)
    return torch.cat([affine, bottom], dim=1)


def _compose(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    return outer @ _as_matrix(inner)


def _inverse(matrix: torch.Tensor) -> torch.Tensor:
    """Inverses (B, 3, 3), not checked: a check would make a GPU's host wait in every batch."""
    return torch.linalg.inv_ex(matrix).inverse


def _invert(affine: torch.Tensor) -> torch.Tensor:
    return _inverse(_as_matrix(affine))[:, :2]


def _transform(affine: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return points @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]


def change_colours(
    images: torch.Tensor, config: AugmentConfig, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Change every image's colours at random, and clip to [0, 1].

    An image becomes ``contrast * (image + brightness)``, then its saturation and hue change, then noise is
    added; each of the five with the configured probability.

    Args:
        images: (B, 3, H, W) RGB in [0, 1].
        config: ranges.
        generator: of the random numbers, on any device; the default one if None.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    source = "cpu" if generator is None else generator.device

    def draw(low: float, high: float, neutral: float = 0.0) -> torch.Tensor:
        uniform = torch.rand(2, len(images), generator=generator, device=source)
        chosen = torch.where(uniform[0] < config.probability, low + (high - low) * uniform[1], neutral)
        return chosen.to(images.device)

    brightness = draw(-config.brightness, config.brightness)
    contrast, saturation = draw(*config.contrast, 1.0), draw(*config.saturation, 1.0)
    hue = draw(-math.radians(config.hue_deg), math.radians(config.hue_deg))
    noise = draw(0.0, config.noise)
    if config.colour_space == "hsv":
        images = (contrast * brightness)[:, None, None, None] + contrast[:, None, None, None] * images
        images = change_hsv(images.clamp_(0, 1), saturation, hue)
    else:
        matrix = contrast[:, None, None] * colour_matrix(saturation, hue)
        offset = matrix.sum(dim=2, keepdim=True) * brightness[:, None, None]
        images = torch.baddbmm(offset, matrix, images.flatten(2)).unflatten(2, images.shape[2:])
    if config.noise > 0:
        # The images' noise is one field, a little further along for each: many times quicker to draw than one an image.
        size = images[0].numel()
        field = torch.randn(size + _NOISE_STEP * (len(images) - 1), generator=generator, device=source)
        fields = field.to(images.device).unfold(0, size, _NOISE_STEP).view(images.shape)
        images = images.addcmul_(fields, noise[:, None, None, None])
    return images.clamp_(0, 1)


def colour_matrix(saturation: torch.Tensor, hue: torch.Tensor) -> torch.Tensor:
    """Matrices (B, 3, 3) that turn RGB about the grey axis by ``hue`` (B,), radians, and scale its distance
    from the grey of equal luma by ``saturation`` (B,). Greys stay as they are."""
    axis = torch.full((3,), 1 / math.sqrt(3), device=hue.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=hue.device) / math.sqrt(3)
    cosine, sine = hue.cos()[:, None, None], hue.sin()[:, None, None]
    identity = torch.eye(3, device=hue.device)
    turn = cosine * identity + sine * cross + (1 - cosine) * axis[:, None] * axis  # Rodrigues
    grey = torch.tensor(_LUMA, device=hue.device).expand(3, 3)
    factor = saturation[:, None, None]
    return (factor * identity + (1 - factor) * grey) @ turn


def change_hsv(images: torch.Tensor, saturation: torch.Tensor, hue: torch.Tensor) -> torch.Tensor:
    """Multiply the S of HSV by ``saturation`` (B,), clipped at 1, and add ``hue`` (B,), radians, to H.

    Args:
        images: (B, 3, H, W) RGB in [0, 1].
    """
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    safe = chroma.clamp_min(1e-12)
    sextant = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sextant = sextant + (hue * (3 / math.pi))[:, None, None]
    chroma = torch.minimum(chroma * saturation[:, None, None], value)
    distance = (torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None] + sextant[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(distance, 4 - distance).clamp(0, 1)
