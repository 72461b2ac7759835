"""What Adam and Levenberg-Marquardt can both minimise, so that their ends can be compared."""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch

from src.personalization.fitting.adam import AdamOptions, fit_adam
from template import HandModel
from utils.camera import project


@dataclass
class SharedObjective:
    """Mean squared reprojection error of N frames, px^2, and LM's pose prior in its units.

    Attributes:
        hand: the layer; pose (N,16,3,3) at which the prior is centred; betas (N,10); K (N,3,3) px;
            keypoints (N,21,2) px; ratio: standard deviation of the keypoints over that of the prior, px / rad.
    """

    hand: HandModel
    pose: torch.Tensor
    betas: torch.Tensor
    K: torch.Tensor
    keypoints: torch.Tensor
    ratio: float

    def pull(self, rotations: torch.Tensor) -> torch.Tensor:
        """The prior (N,), px^2, of rotations (N,16,3,3): Adam's mean is over 42 coordinates."""
        return safe_log(self.pose.mT @ rotations).square().sum(dim=(1, 2)) * self.ratio**2 / 42

    def value(self, pose: torch.Tensor, transl: torch.Tensor) -> torch.Tensor:
        """The objective (N,), px^2, of pose (N,16,3,3) and transl (N,3) m."""
        with torch.no_grad():
            off = project(self.hand.joints(pose, self.betas, transl), self.K) - self.keypoints
            return off.square().mean(dim=(1, 2)) + self.pull(pose)

    def settled(self, pose: torch.Tensor, transl: torch.Tensor) -> float:
        """Share of frames that gain less than 0.1 % in 100 further small steps from there."""
        again = AdamOptions(translation_steps=0, pose_steps=100, pose_rate=1e-4)
        before = self.value(pose, transl)
        given = (self.betas, self.K, self.keypoints)
        restarted = fit_adam(self.hand.joints, pose, *given, options=again, penalty=self.pull, start=transl)
        return float(((before - restarted.loss) < 1e-3 * before).double().mean())


def safe_log(rotation: torch.Tensor) -> torch.Tensor:
    """Rotation logarithm whose gradient is finite at the identity: there log R = vee(R - R^T) / 2."""
    off = rotation - rotation.mT
    linear = torch.stack([off[..., 2, 1], off[..., 0, 2], off[..., 1, 0]], dim=-1) / 2
    small = linear.detach().norm(dim=-1, keepdim=True) < 1e-3
    filled = torch.where(small[..., None], rotation.new_tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), rotation)
    return torch.where(small, linear, roma.rotmat_to_rotvec(filled))
