"""How likely each keypoint is right, whether there is a hand, and which one: a head that says probabilities."""

from __future__ import annotations

import torch
from torch import nn

from src.models.lifting import DepthHead, PoseHead

#: A keypoint is right when it lies within this part of the side of the hand's box.
RIGHT_WITHIN = 0.1


class KeypointRating(nn.Module):
    """From the pooled deepest features and the heat maps' own spread and peak to logits.

    Args:
        channels, fine_channels: of the deepest and of the finest map. Hand and side are judged by what the finest holds
            at each keypoint, by the layout of these and by the deepest, which alone takes palms for backs too often.
        hidden: width; lifts: say each keypoint's relative depth as well (`DepthHead`); poses: and the hand's pose
            (`PoseHead`).
    """

    def __init__(
        self, channels: int, fine_channels: int, hidden: int = 192, lifts: bool = False, poses: bool = False
    ) -> None:
        super().__init__()
        self.context = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU())
        self.event = nn.Sequential(nn.Linear(hidden + 42, hidden), nn.ReLU(), nn.Linear(hidden, 21))
        inputs = channels + 21 * (fine_channels + 3)
        self.hand = nn.Sequential(  # there is a hand; it is a left one, as seen
            nn.LayerNorm(inputs), nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 2)
        )
        self.depth = DepthHead(channels, fine_channels) if lifts else None
        self.posing = PoseHead(channels, fine_channels) if poses else None
        #: Platt's scale and offset of each kind of logit (keypoints, hand, left), set after the training.
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("offset", torch.zeros(3))

    def forward(
        self,
        deepest: torch.Tensor,
        heatmap_logits: torch.Tensor,
        spread: torch.Tensor,
        keypoints: torch.Tensor,
        fine: torch.Tensor,
        betas: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Logits and probabilities.

        Args:
            deepest: (B, C, h, w); heatmap_logits: (B, 21, H, W); spread: (B, 21) the maps' confidence in (0, 1].
            keypoints: (B, 21, 2) parts of the crop's side; fine: (B, fine_channels, H, W); betas: see `PoseHead`.

        Returns:
            ``event_logits`` (B, 21) and ``hand_logits`` (B, 2), not calibrated; ``keypoint_confidence`` (B, 21), the
            probability that a keypoint is within `RIGHT_WITHIN`; ``is_hand`` and ``is_left`` (B,), probabilities; with
            ``lifts`` what `DepthHead` returns, with ``poses`` what `PoseHead` does.
        """
        with torch.autocast(deepest.device.type, enabled=False):
            pooled = deepest.float().mean((2, 3))
            context = self.context(pooled)
            maps = heatmap_logits.detach().float().flatten(2)
            probability = maps.softmax(-1)
            peak = probability.amax(-1).log()
            own = torch.cat([spread.detach().float().clamp_min(1e-4).log(), peak], dim=1)
            there = probability @ fine.float().flatten(2).transpose(1, 2)  # (B, 21, fine_channels)
            layout = keypoints.detach().float()
            layout = 4 * (layout - layout.mean(1, keepdim=True))
            event = self.event(torch.cat([context, own], dim=1))
            hand = self.hand(torch.cat([pooled, there.flatten(1), layout.flatten(1), peak], dim=1))
            seen = pooled, there, layout, peak
            lifted = {} if self.depth is None else self.depth(*seen)
            if self.posing is not None:
                lifted |= self.posing(*seen, depth=lifted["depth"], betas=betas)
            return lifted | {
                "event_logits": event,
                "hand_logits": hand,
                "keypoint_confidence": (self.scale[0] * event + self.offset[0]).sigmoid(),
                "is_hand": (self.scale[1] * hand[:, 0] + self.offset[1]).sigmoid(),
                "is_left": (self.scale[2] * hand[:, 1] + self.offset[2]).sigmoid(),
            }


def keypoint_is_right(found: torch.Tensor, truth: torch.Tensor, box_side: torch.Tensor) -> torch.Tensor:
    """(B, 21) bool: found (B, 21, 2) within `RIGHT_WITHIN` of box_side (B,) of truth (B, 21, 2), px."""
    return (found - truth).norm(dim=-1) < RIGHT_WITHIN * box_side[:, None]
