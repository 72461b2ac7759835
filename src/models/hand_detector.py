"""The hands of a picture: boxes and scores. torchvision's parts; one stage, without anchors (FCOS).

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019. Boxes are squares around the 21
keypoints, so they are what the keypoint networks' crops are cut by. Which hand it is, the keypoint network says: after
a million pictures this one still guessed (docs/world.md).
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import (
    Conv2dNormActivation,
    FeaturePyramidNetwork,
    batched_nms,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from src.models.backbones import Backbone

INPUT_SIZE = 256
STRIDES = (8, 16, 32)
#: Sides of the boxes that each level answers for, px.
_SIDES = ((0.0, 52.0), (44.0, 116.0), (100.0, 1e9))
#: A cell answers for a box if it lies within so many strides, or this part of the side, of its centre.
_NEAR, _NEAR_SHARE = 1.5, 0.22
_CANDIDATES = 200  # cells of a picture that are looked at
SAME_HAND = 0.45  # boxes that share more of their union are one hand
_GROUPS = 16


class HandDetector(nn.Module):
    """Picture (B, 3, S, S) in [-1, 1] to dense answers; ``width``: channels of the pyramid and the head."""

    def __init__(self, backbone: str = "mobilenet_v3_small", width: int = 80) -> None:
        super().__init__()
        self.backbone = Backbone(backbone)
        self.pyramid = FeaturePyramidNetwork(list(self.backbone.channels[1:]), width)

        def tower() -> nn.Sequential:  # depthwise and pointwise, as in SSDlite
            layers: list[nn.Module] = []
            # Batch statistics are of no use here: three levels share a tower, and each has its own.
            block = partial(Conv2dNormActivation, width, width, norm_layer=partial(nn.GroupNorm, _GROUPS))
            for _ in range(2):
                layers += [block(3, groups=width), block(1)]
            return nn.Sequential(*layers)

        self.class_tower, self.box_tower = tower(), tower()
        self.classes = nn.Conv2d(width, 1, 1)
        self.distances = nn.Conv2d(width, 4, 1)
        nn.init.constant_(self.classes.bias, -4.6)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.distances.weight, std=0.01)
        nn.init.zeros_(self.distances.bias)
        #: Platt's scale and offset, set after the training, and the probability to ask for.
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("threshold", torch.full((), 0.5))

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """``class_logits`` (B, N), not calibrated, and ``boxes`` (B, N, 4) px, over all N cells."""
        features = self.backbone(image)[1:]
        levels = self.pyramid({str(number): feature for number, feature in enumerate(features)}).values()
        logits, boxes = [], []
        for level, stride in zip(levels, STRIDES, strict=True):
            logits.append(self.classes(self.class_tower(level)).flatten(1))
            distances = self.distances(self.box_tower(level)).flatten(2).transpose(1, 2).float()
            distances = F.softplus(distances + 1.5) * 2 * stride
            centres = cell_centres(level.shape[-2], level.shape[-1], stride, image.device)
            boxes.append(torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1))
        return {"class_logits": torch.cat(logits, 1).float(), "boxes": torch.cat(boxes, 1)}

    def probability(self, logits: torch.Tensor) -> torch.Tensor:
        """Calibrated probability of a hand there."""
        return (self.scale * logits + self.offset).sigmoid()


def cell_centres(rows: int, columns: int, stride: int, device: torch.device) -> torch.Tensor:
    """(rows * columns, 2) px of the cells' centres (pixel centres at integers)."""
    y, x = torch.meshgrid(*(torch.arange(n, device=device) for n in (rows, columns)), indexing="ij")
    return (torch.stack([x, y], -1).view(-1, 2) + 0.5) * stride - 0.5


def assign(boxes: torch.Tensor, weight: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which box each cell answers for.

    Args:
        boxes: (B, M, 4) px; weight: (B, M) 1 hand, 0 ignore, -1 nothing.
        size: side of the picture, px.

    Returns:
        index (B, N) of the smallest box a cell answers for, -1 for none; ignore (B, N) bool: cells inside boxes of
        weight 0, or beside a hand's centre, that are not asked.
    """
    low, high, middle = boxes[..., :2], boxes[..., 2:], (boxes[..., :2] + boxes[..., 2:]) / 2
    side = (high - low).amax(-1)
    indices, ignored = [], []
    for stride, (smallest, largest) in zip(STRIDES, _SIDES, strict=True):
        cells = size // stride
        centres = cell_centres(cells, cells, stride, boxes.device)[None, :, None]
        # Centres outside the picture are answered for by the cells at the edge.
        inside = middle.clamp(0, size - 1)
        distance = (centres - inside[:, None]).abs().amax(-1)
        reach = torch.maximum(torch.full_like(side, _NEAR * stride), _NEAR_SHARE * side)[:, None]
        fits = (weight > 0) & (side >= smallest) & (side < largest)
        answers = (distance < reach) & fits[:, None]
        place = torch.where(answers, side[:, None].expand_as(distance), torch.inf)
        best, index = place.min(-1)
        indices.append(torch.where(best.isfinite(), index, -1))
        beside = (distance < 1.7 * reach) & (weight >= 0)[:, None]
        within = ((centres > low[:, None]) & (centres < high[:, None])).all(-1) & (weight == 0)[:, None]
        ignored.append((beside | within).any(-1) & ~best.isfinite())
    return torch.cat(indices, 1), torch.cat(ignored, 1)


def detector_loss(
    output: dict[str, torch.Tensor], boxes: torch.Tensor, weight: torch.Tensor, size: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Focal loss of hands and generalised IoU of their boxes (B, M, 4); weight (B, M) as `assign`."""
    index, ignore = assign(boxes, weight, size)
    positive = index >= 0
    safe = index.clamp_min(0)
    count = positive.sum().clamp_min(1)
    focal = sigmoid_focal_loss(output["class_logits"], positive.float(), alpha=0.3, gamma=2.0)
    class_loss = (focal * ~ignore).sum() / count
    wanted = boxes.gather(1, safe[..., None].expand(-1, -1, 4))
    giou = generalized_box_iou_loss(output["boxes"], wanted, reduction="none")
    box_loss = torch.where(positive, giou, torch.zeros_like(giou)).sum() / count
    return class_loss + box_loss, {"class_loss": class_loss.detach(), "box_loss": box_loss.detach()}


@torch.no_grad()
def decode(
    output: dict[str, torch.Tensor], detector: HandDetector, threshold: float | None = None, most: int = 10
) -> list[dict[str, torch.Tensor]]:
    """Hands of each picture, surest first: ``boxes`` (K, 4) px of the input and ``scores`` (K,)."""
    threshold = float(detector.threshold) if threshold is None else threshold
    hands = []
    for logits, boxes in zip(output["class_logits"], output["boxes"], strict=True):
        scores = detector.probability(logits)
        scores, order = scores.topk(min(_CANDIDATES, len(scores)))
        boxes = boxes[order]
        places = torch.nonzero(scores >= threshold)[:, 0]
        kept = batched_nms(boxes[places], scores[places], torch.zeros_like(places), SAME_HAND)[:most]
        places = places[kept]
        hands.append({"boxes": boxes[places], "scores": scores[places]})
    return hands
