"""Probabilities that mean what they say, on held-back renders: Platt's scale and offset, and a detector's threshold.

Platt, "Probabilistic Outputs for Support Vector Machines", 1999; with the offset at zero it is temperature scaling.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn
from torchvision.ops import box_iou

from datasets.synthetic.world.bank import ResidentBank
from datasets.synthetic.world.mixing import mix_crops, mix_pictures
from src.models.hand_detector import HandDetector, decode
from src.models.keypoint_rating import keypoint_is_right

FALSE_ALARMS = 0.02
"""Share of pictures without a hand in which the detector may find one."""

_BATCH = 128


def fit_platt(logits: torch.Tensor, happened: torch.Tensor, steps: int = 30) -> tuple[float, float]:
    """Scale and offset (a, b) of the most likely sigmoid(a * logit + b), by Newton's method.

    Args:
        logits: (N,); happened: (N,) bool.
    """
    x = torch.stack([logits.double(), torch.ones_like(logits, dtype=torch.float64)], 1)
    y = happened.double()
    # One of each kind more than were seen keeps the answer finite where one kind never happened.
    y = (y * y.sum() + 0.5 * (1 - y)) / (y.sum() + 1) if bool(happened.all()) else y
    w = torch.tensor([1.0, 0.0], dtype=torch.float64, device=x.device)
    for _ in range(steps):
        p = (x @ w).sigmoid()
        gradient = x.T @ (p - y) + 1e-3 * (w - w.new_tensor([1.0, 0.0]))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-3 * torch.eye(2, dtype=torch.float64, device=x.device)
        w = w - torch.linalg.solve(hessian, gradient).clamp(-2, 2)
    return float(w[0].clamp_min(0.05)), float(w[1])


def expected_error(probability: torch.Tensor, happened: torch.Tensor, bins: int = 10) -> float:
    """Expected calibration error: mean gap between said and happened over equal bins, weighted by their counts."""
    place = (probability * bins).long().clamp(0, bins - 1).flatten()
    count = torch.bincount(place, minlength=bins).clamp_min(1)
    said = torch.bincount(place, probability.flatten().double(), minlength=bins) / count
    was = torch.bincount(place, happened.flatten().double(), minlength=bins) / count
    return float(((said - was).abs() * torch.bincount(place, minlength=bins)).sum() / place.numel())


def _mean(values: torch.Tensor) -> float | None:
    """None of nothing."""
    return float(values.float().mean()) if values.numel() else None


@torch.no_grad()
def calibrate_keypoints(
    model: nn.Module, bank: ResidentBank, count: int, size: int, keep: bool = False
) -> dict[str, float | None]:
    """Set the rating's scales from half of ``count`` crops, or ``keep`` them; scores on the other half."""
    rows: dict[str, list[torch.Tensor]] = defaultdict(list)
    for _ in range(-(-count // _BATCH)):
        crops = mix_crops(bank, _BATCH, size, left=0.2)
        output = model(crops.image)
        found = {
            "event": output["event_logits"],
            "right": keypoint_is_right(output["keypoints_2d"], crops.keypoints, crops.box_side),
            "hand": output["hand_logits"],
            "is_hand": crops.is_hand,
            "is_left": crops.is_left,
            "depth": (output["depth"] - crops.depth).abs(),
            "error": (output["keypoints_2d"] - crops.keypoints).norm(dim=-1) / crops.box_side[:, None],
        }
        for name, values in found.items():
            rows[name].append(values)
    data = {name: torch.cat(parts) for name, parts in rows.items()}
    half = len(data["event"]) // 2
    first, rest = ({name: values[part] for name, values in data.items()} for part in (slice(half), slice(half, None)))
    of_hands = {name: values[first["is_hand"]] for name, values in first.items()}
    fits = (
        fit_platt(of_hands["event"].flatten(), of_hands["right"].flatten()),
        fit_platt(first["hand"][:, 0], first["is_hand"]),
        fit_platt(of_hands["hand"][:, 1], of_hands["is_left"]),
    )
    scale, offset = model.rating.scale, model.rating.offset
    if not keep:
        scale.copy_(scale.new_tensor([one for one, _ in fits]))
        offset.copy_(offset.new_tensor([one for _, one in fits]))
    rest = {name: values[rest["is_hand"]] for name, values in rest.items()}
    said = (scale[0] * rest["event"] + offset[0]).sigmoid()
    sure = (said > 0.7) & (said < 0.8)
    return {
        "right": _mean(rest["right"]),
        "median_error": float(rest["error"].median()),
        "depth_error_mm": 1000 * float(rest["depth"].mean()),
        "right_where_0.7_to_0.8": _mean(rest["right"][sure]),
        "calibration_error": expected_error(said, rest["right"]),
        "side_right": _mean((scale[2] * rest["hand"][:, 1] + offset[2] > 0) == rest["is_left"]),
    }


@torch.no_grad()
def calibrate_detector(model: HandDetector, bank: ResidentBank, count: int, size: int) -> dict[str, float | None]:
    """Set the detector's scale, offset and threshold from half of ``count`` pictures; scores on the other half.

    The threshold is the lowest with `FALSE_ALARMS` of the pictures without a hand above it.
    """
    model.scale.fill_(1), model.offset.fill_(0)
    best, empty, boxes_logits, boxes_hit, found = [], [], [], [], []
    for _ in range(-(-count // _BATCH)):
        pictures = mix_pictures(bank, _BATCH, size)
        output = model(pictures.image)
        hands = decode(output, model, 0.0, most=6)
        empty.append((pictures.weight < 0).all(1))
        best.append(torch.stack([torch.logit(one["scores"][0], 1e-6) for one in hands]))
        for one, boxes, weight in zip(hands, pictures.boxes, pictures.weight, strict=True):
            logits = torch.logit(one["scores"], 1e-6)
            overlap = box_iou(one["boxes"], boxes)
            hit = ((overlap > 0.5) & (weight > 0)).any(1)
            asked = ~((overlap > 0.3) & (weight == 0)).any(1)
            boxes_logits.append(logits[asked]), boxes_hit.append(hit[asked])
            for number in torch.nonzero(weight > 0)[:, 0]:
                overlaps, place = overlap[:, number].max(0)
                sureness = torch.where(overlaps > 0.5, logits[place], torch.full_like(logits[place], -99))
                found.append(torch.stack([sureness, boxes[number, 2] - boxes[number, 0]]))
    scores, is_empty, found_rows = torch.cat(best), torch.cat(empty), torch.stack(found)
    logits, hit = torch.cat(boxes_logits), torch.cat(boxes_hit)
    half = len(scores) // 2
    scale, offset = fit_platt(logits[: len(logits) // 2], hit[: len(hit) // 2])
    model.scale.fill_(scale), model.offset.fill_(offset)
    highest = torch.quantile(scores[:half][is_empty[:half]].float(), 1 - FALSE_ALARMS)
    model.threshold.copy_(model.probability(highest))
    second = found_rows[len(found_rows) // 2 :]
    seen = second[:, 0] >= highest
    said = model.probability(logits[len(logits) // 2 :])
    large = second[:, 1] > 40
    return {
        "found": _mean(seen),
        "found_over_40px": _mean(seen[large]),
        "false_alarms": _mean(scores[half:][is_empty[half:]] >= highest),
        "threshold": float(model.threshold),
        "calibration_error": expected_error(said, hit[len(hit) // 2 :]),
    }
