"""Pictures mixed of a bank on any device: crops for keypoints, whole pictures for the detector.

Pixel centres are at integers; an affine (B, 2, 3) here takes pixels of the new picture to pixels of its source.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import roma
import torch
import torch.nn.functional as F

from datasets.synthetic.world.background import SIDE
from datasets.synthetic.world.bank import ResidentBank
from datasets.synthetic.world.photography import happens, photograph, uniform

#: Side of a keypoint crop over that of the hand's box, as `ModelCard.crop_scale`.
CROP_SCALE = 1.5


class Crops(NamedTuple):
    """A batch for the keypoint network."""

    image: torch.Tensor  # (B, 3, S, S) in [-1, 1]
    keypoints: torch.Tensor  # (B, 21, 2) px
    box_side: torch.Tensor  # (B,) px: side of the square around the keypoints
    is_left: torch.Tensor  # (B,) bool: a left hand, as seen
    is_hand: torch.Tensor  # (B,) bool; keypoints mean nothing where not
    depth: torch.Tensor  # (B, 21) m about their mean, as `hands.relative_depth`; a mirror changes nothing
    extent: torch.Tensor  # (B,) m across the crop, at the hand
    pose: torch.Tensor  # (B, 16, 3, 3) as `hands.relative_pose`, turned with the crop; not of left hands
    betas: torch.Tensor  # (B, 10)


class Pictures(NamedTuple):
    """A batch for the detector; boxes are squares around all 21 keypoints, also those outside the picture."""

    image: torch.Tensor  # (B, 3, S, S) in [-1, 1]
    boxes: torch.Tensor  # (B, N, 4) left, top, right, bottom, px
    weight: torch.Tensor  # (B, N): 1 a hand, 0 too little of one to ask for or to punish, -1 nothing


def similarity(
    scale: torch.Tensor, turn: torch.Tensor, flip: torch.Tensor, source_centre: torch.Tensor, centre: torch.Tensor
) -> torch.Tensor:
    """Affine (B, 2, 3): source = scale * R(turn) * (flip x) (pixel - centre) + source_centre.

    Args:
        scale: (B,) source pixels a pixel; turn: (B,) radians; flip: (B,) bool.
        source_centre, centre: (B, 2) px that fall on each other.
    """
    cosine, sine = turn.cos() * scale, turn.sin() * scale
    sign = torch.where(flip, -1.0, 1.0)
    linear = torch.stack([torch.stack([cosine * sign, -sine], -1), torch.stack([sine * sign, cosine], -1)], 1)
    return torch.cat([linear, (source_centre - (linear @ centre[..., None])[..., 0])[..., None]], dim=2)


def invert_points(affine: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Pixels of the new picture (B, N, 2) of source pixels (B, N, 2)."""
    inverse = torch.linalg.inv(affine[:, :, :2])
    return (points - affine[:, None, :, 2]) @ inverse.transpose(1, 2)


def resample(source: torch.Tensor, affine: torch.Tensor, size: int, padding: str = "zeros") -> torch.Tensor:
    """Source (B, C, h, h) as pictures (B, C, size, size), bilinear."""
    half = source.shape[-1] / 2
    # grid_sample's coordinate of pixel centre p is (p + 0.5) / half - 1, affine_grid's output runs over the same.
    axis = torch.arange(size, device=source.device, dtype=source.dtype)
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(1, -1, 2)
    at = pixels @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]
    grid = ((at + 0.5) / half - 1).view(len(source), size, size, 2)
    return F.grid_sample(source, grid, padding_mode=padding, align_corners=False)


def _turns(count: int, upright: float, spread: float, device: torch.device) -> torch.Tensor:
    """(count,) radians: a share ``upright`` with the standard deviation ``spread``, the others any."""
    there = happens(count, upright, device)
    return torch.where(there, spread * torch.randn(count, device=device), uniform(count, -math.pi, math.pi, device))


def _box(keypoints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Middle (B, 2) and side (B,) of the square around keypoints (B, N, 2)."""
    low, high = keypoints.amin(1), keypoints.amax(1)
    return (low + high) / 2, (high - low).amax(1)


def _scenery(bank: ResidentBank, count: int, size: int, closest: float) -> torch.Tensor:
    """(B, 3, size, size) parts of backgrounds, turned, flipped, enlarged up to 1 / ``closest`` times."""
    device = bank.device
    wall = bank.wall(torch.randint(bank.backgrounds, (count,), device=device))
    share = torch.exp(uniform(count, math.log(closest), 0.0, device))
    turn = torch.where(
        happens(count, 0.3, device), uniform(count, -math.pi, math.pi, device), 0.05 * torch.randn(count, device=device)
    )
    free = (1 - share)[:, None] * SIDE * (torch.rand(count, 2, device=device) - 0.5)
    middle = torch.full((count, 2), (size - 1) / 2, device=device)
    affine = similarity(share * SIDE / size, turn, happens(count, 0.5, device), SIDE / 2 - 0.5 + free, middle)
    return resample(wall, affine, size, "reflection")


def _lay(picture: torch.Tensor, layer: torch.Tensor) -> torch.Tensor:
    """A layer (B, 4, S, S), colour times alpha, over a picture (B, 3, S, S)."""
    return layer[:, :3] + (1 - layer[:, 3:]) * picture


def _shadow(picture: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """A soft shadow of alpha (B, 1, S, S) on what is behind, for some of the pictures."""
    count, size, device = len(picture), picture.shape[-1], picture.device
    low = F.avg_pool2d(alpha, 4)
    low = F.avg_pool2d(F.pad(low, [2] * 4, mode="replicate"), 5, stride=1)
    move = similarity(
        torch.full((count,), 0.25, device=device), torch.zeros(count, device=device),
        torch.zeros(count, dtype=torch.bool, device=device), torch.full((count, 2), size / 8 - 0.5, device=device),
        size / 2 - 0.5 + 0.07 * size * torch.randn(count, 2, device=device),
    )  # fmt: skip
    strength = happens(count, 0.4, device) * uniform(count, 0.1, 0.65, device)
    return picture * (1 - strength.view(-1, 1, 1, 1) * resample(low, move, size))


def _blobs(picture: torch.Tensor, bank: ResidentBank, share: float) -> torch.Tensor:
    """Something in front: an ellipse or box cut from a background, somewhere near the edge or on the hand."""
    count, size, device = len(picture), picture.shape[-1], picture.device
    axis = torch.linspace(-1, 1, size, device=device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    centre = 1.2 * (2 * torch.rand(count, 2, 1, 1, device=device) - 1)
    turn, radius = uniform(count, 0, math.pi, device).view(-1, 1, 1), uniform(2 * count, 0.08, 0.5, device)
    u, v = x - centre[:, 0], y - centre[:, 1]
    u, v = u * turn.cos() + v * turn.sin(), v * turn.cos() - u * turn.sin()
    u, v = u / radius[:count].view(-1, 1, 1), v / radius[count:].view(-1, 1, 1)
    round_one = happens(count, 0.6, device).view(-1, 1, 1)
    inside = torch.where(round_one, u**2 + v**2, torch.maximum(u.abs(), v.abs())) < 1
    inside &= happens(count, share, device).view(-1, 1, 1)
    return torch.where(inside[:, None], _scenery(bank, count, size, 0.2), picture)


def _frame(picture: torch.Tensor, share: float, most: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A ``share`` of the batch is black beyond a frame, as crops are that leave the photograph.

    Returns:
        the pictures; (B, 2, 2) px: first and last pixel inside, x and y. At most ``most`` of a side is cut at an edge.
    """
    count, size, device = len(picture), picture.shape[-1], picture.device
    cut = most * torch.rand(count, 4, device=device) * happens(4 * count, 0.5, device).view(-1, 4)
    bars = happens(count, 0.4, device)[:, None]  # pictures that are no square: two even bars
    wide = happens(count, 0.5, device)[:, None]
    even = cut[:, :1].expand(-1, 2)
    cut = torch.where(bars, torch.cat([even * wide, even * ~wide], 1)[:, [0, 2, 1, 3]], cut)
    cut = (cut * happens(count, share, device)[:, None] * size).round()
    low, high = cut[:, :2], size - 1 - cut[:, 2:]
    axis = torch.arange(size, device=device)
    inside = (axis >= low[..., None]) & (axis <= high[..., None])  # (B, 2, S)
    inside = inside[:, 1, :, None] & inside[:, 0, None, :]
    return picture * inside[:, None], torch.stack([low, high], 1)


def mix_crops(bank: ResidentBank, count: int, size: int = 128, left: float = 0.15) -> Crops:
    """Crops as a detector's boxes cut them, a little off; ``left``: share of left hands (all others are right)."""
    device = bank.device
    index = torch.randint(bank.cutouts, (count,), device=device)
    cut, keypoints = bank.cut(index)
    box_middle, side = _box(keypoints)
    window = CROP_SCALE * side * torch.exp(0.13 * torch.randn(count, device=device)).clamp(0.7, 1.5)
    missed = happens(count, 0.06, device)
    shift = 0.07 * torch.randn(count, 2, device=device)
    angle = uniform(count, 0, 2 * math.pi, device)
    far = uniform(count, 1.0, 1.6, device)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    centre = box_middle + side[:, None] * torch.where(missed[:, None], far * 1.3, shift)
    turn = _turns(count, 0.6, math.radians(22), device)
    is_left = happens(count, left, device)
    middle = torch.full((count, 2), (size - 1) / 2, device=device)
    affine = similarity(window / size, turn, is_left, centre, middle)
    picture = _scenery(bank, count, size, 0.2)
    other = _other_hand(bank, count, size)
    behind = happens(count, 0.18, device).view(-1, 1, 1, 1)
    picture = torch.where(behind, _lay(picture, other), picture)
    empty, arm = happens(count, 0.06, device), happens(count, 0.04, device)
    wiped = _without_hand(_fade_out(cut), box_middle, side)
    layer = resample(torch.where(arm.view(-1, 1, 1, 1), wiped, cut), affine, size)
    picture = torch.where(empty.view(-1, 1, 1, 1), picture, _lay(_shadow(picture, layer[:, 3:]), layer))
    before = happens(count, 0.07, device).view(-1, 1, 1, 1) & ~behind
    picture = torch.where(before, _lay(picture, other), picture)
    picture = _blobs(picture, bank, 0.15)
    image, _ = _frame(photograph(picture), 0.35, 0.25)
    seen = invert_points(affine, keypoints)
    box, is_hand = side / window * size, ~(missed | empty | arm)
    known = bank.depth[index], bank.pixel[index] * window, turned(bank.pose[index], turn), bank.betas[index]
    return Crops(image * 2 - 1, seen, box, is_left, is_hand, *known)


def turned(pose: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Poses (B, 16, 3, 3) as pictures show them whose `similarity` to their source has the angles ``turn`` (B,),
    radians."""
    back = roma.rotvec_to_rotmat(torch.stack([0 * turn, 0 * turn, -turn], dim=1))
    return torch.cat([(back @ pose[:, 0])[:, None], pose[:, 1:]], dim=1)


def _other_hand(bank: ResidentBank, count: int, size: int) -> torch.Tensor:
    """(B, 4, size, size): somebody's hand beside the one that is meant."""
    device = bank.device
    cut, keypoints = bank.cut(torch.randint(bank.cutouts, (count,), device=device))
    middle, side = _box(keypoints)
    window = CROP_SCALE * side * uniform(count, 0.7, 1.6, device)
    angle = uniform(count, 0, 2 * math.pi, device)
    away = uniform(count, 0.3, 0.75, device)[:, None] * size * torch.stack([angle.cos(), angle.sin()], 1)
    turn, flip = uniform(count, -math.pi, math.pi, device), happens(count, 0.6, device)
    affine = similarity(window / size, turn, flip, middle, (size - 1) / 2 + away)
    return resample(cut, affine, size)


#: Sides of hands' boxes, px at 256: large, middle, small, each from a cut-out shrunk so many times before.
_SIZES = ((70, 270, 1), (34, 90, 2), (16, 44, 4))
_THERE = (0.55, 0.4, 0.35)


def mix_pictures(bank: ResidentBank, count: int, size: int = 256) -> Pictures:
    """Pictures of none to three hands of any size, arms without hands, and everything that is none."""
    device = bank.device
    picture = _scenery(bank, count, size, 0.35)
    boxes, points, layers, there = [], [], [], []
    for (smallest, largest, shrink), share in reversed(list(zip(_SIZES, _THERE, strict=True))):
        cut, keypoints = bank.cut(torch.randint(bank.cutouts, (count,), device=device))
        handless = happens(count, 0.1, device)
        middle, side = _box(keypoints)
        cut = torch.where(handless.view(-1, 1, 1, 1), _without_hand(cut, middle, side), cut)
        cut = _fade_out(cut)
        if shrink == 1:  # enlarged, the edges would be stairs
            cut = F.avg_pool2d(cut, 3, 1, 1)
        else:
            cut = F.avg_pool2d(cut, shrink)
            middle, side, keypoints = (middle + 0.5) / shrink - 0.5, side / shrink, (keypoints + 0.5) / shrink - 0.5
        wanted = torch.exp(uniform(count, math.log(smallest), math.log(largest), device)) * size / 256
        centre = (torch.rand(count, 2, device=device) * 1.1 - 0.05) * size
        turn = _turns(count, 0.65, 0.4, device)
        affine = similarity(side / wanted, turn, happens(count, 0.5, device), middle, centre)
        shown = happens(count, share, device)
        layer = resample(cut, affine, size) * shown.view(-1, 1, 1, 1)
        picture = _lay(_shadow(picture, layer[:, 3:]), layer)
        seen = invert_points(affine, keypoints)
        middle, side = _box(seen)
        boxes.append(torch.cat([middle - side[:, None] / 2, middle + side[:, None] / 2], 1))
        points.append(seen), layers.append(layer[:, 3:]), there.append(shown & ~handless)
    image, frame = _frame(photograph(_blobs(picture, bank, 0.1)), 0.5, 0.3)
    weight = torch.stack([
        _weight(seen, layers[number + 1 :], size, shown, frame)
        for number, (seen, shown) in enumerate(zip(points, there, strict=True))
    ], 1)  # fmt: skip
    return Pictures(image * 2 - 1, torch.stack(boxes, 1), weight)


def _weight(
    points: torch.Tensor, later: list[torch.Tensor], size: int, shown: torch.Tensor, frame: torch.Tensor
) -> torch.Tensor:
    """(B,) as `Pictures.weight`, by the share of keypoints inside the frame and not covered by a later hand."""
    grid = ((points + 0.5) / (size / 2) - 1)[:, None]
    free = ((points > frame[:, :1] - 0.5) & (points < frame[:, 1:] + 0.5)).all(-1)
    for alpha in later:
        free = free & (F.grid_sample(alpha, grid, align_corners=False)[:, 0, 0] < 0.5)
    share = free.float().mean(1)
    weight = torch.where(share >= 0.4, 1.0, torch.where(share > 0.15, 0.0, -1.0))
    return torch.where(shown, weight, -1.0)


def _fade_out(cut: torch.Tensor) -> torch.Tensor:
    """Arms end softly at a cut-out's edge, in widths of their own: a straight end would tell where a hand is."""
    axis = torch.arange(cut.shape[-1], device=cut.device)
    edge = torch.minimum(axis, cut.shape[-1] - 1 - axis) + 1.0
    width = uniform(len(cut), 1.0, 26.0, cut.device)
    ramp = (edge / width[:, None]).clamp(max=1)
    return cut * (ramp[:, :, None] * ramp[:, None, :])[:, None]


def _without_hand(cut: torch.Tensor, middle: torch.Tensor, side: torch.Tensor) -> torch.Tensor:
    """Cut-outs whose hand is wiped out: what is left is an arm."""
    axis = torch.arange(cut.shape[-1], device=cut.device)
    distance = torch.maximum((axis - middle[:, :1]).abs()[:, None, :], (axis - middle[:, 1:]).abs()[:, :, None])
    return cut * (distance > 0.56 * side.view(-1, 1, 1))[:, None]
