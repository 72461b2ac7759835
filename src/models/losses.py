"""Losses of the MANO networks (docs/facts.md 7.1 and 7.2). Meshes are compared in units of 0.2 m."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

#: Length, in metres, that counts as one in mesh losses: about a hand.
MESH_UNIT = 0.2


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term. ``paper`` is the released code's set; ``fair`` adds joints and heat maps."""

    mesh: float = 1.0
    joints: float = 2.0
    normal: float = 0.1
    edge: float = 1.0
    pose: float = 1.0
    betas: float = 0.3
    heatmap: float = 0.1
    keypoints: float = 2.0

    @classmethod
    def paper(cls) -> LossWeights:
        """L1 mesh, 0.1 normal, edge length, L1 6D pose and L1 betas, nothing else."""
        return cls(joints=0.0, betas=1.0, heatmap=0.0, keypoints=0.0)


def face_edges(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """The three edge vectors (B, F, 3, 3), metres, of each face; vertices (B, V, 3), faces (F, 3)."""
    if vertices.is_cuda:  # the form whose gradient needs no sorting
        corners = vertices.index_select(1, faces.reshape(-1)).unflatten(1, faces.shape)
    else:
        corners = vertices[:, faces]
    return corners.roll(-1, dims=2) - corners


def normal_loss(predicted: torch.Tensor, target: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Mean |cos| between predicted edges and true face normals, which should be at right angles.

    Args:
        predicted, target: (B, V, 3), any unit.
        faces: (F, 3) vertex ids.
    """
    true_edges = face_edges(target, faces)
    normals = F.normalize(torch.linalg.cross(true_edges[:, :, 0], true_edges[:, :, 1]), dim=-1)
    directions = F.normalize(face_edges(predicted, faces), dim=-1)
    return (directions * normals[:, :, None]).sum(-1).abs().mean()


def edge_length_loss(predicted: torch.Tensor, target: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of edge lengths, in the unit of the vertices (B, V, 3); faces (F, 3)."""
    return (face_edges(predicted, faces).norm(dim=-1) - face_edges(target, faces).norm(dim=-1)).abs().mean()


def ranking_loss(
    confidence: torch.Tensor, error: torch.Tensor, person: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """How badly scores order the pairs of a batch, and the share of pairs ordered rightly: higher means a lower error.

    Args:
        confidence: (B,) scores.
        error: (B,) any unit. Ties carry no information and are dropped.
        person: None: all pairs, with a margin of 1 between their scores, as released. (B,) numbers: the pairs of one
            person, log(1 + exp(-gap)) of each, weighted by how much their errors differ (RankNet; Burges et al.,
            ICML 2005, eq. 3, with a weight).

    Returns:
        scalar mean and scalar share; 0 and NaN without a usable pair (a batch of one).
    """
    first, second = torch.triu_indices(len(error), len(error), offset=1, device=error.device)
    difference = error[second] - error[first]
    keep = difference != 0 if person is None else (person[first] == person[second]) & (difference != 0)
    difference = difference[keep]
    gap = (confidence[first] - confidence[second])[keep] * difference.sign()
    if gap.numel() == 0:
        return confidence.sum() * 0.0, torch.full((), float("nan"), device=error.device)
    each = F.relu(1.0 - gap) if person is None else F.softplus(-gap) * difference.abs()
    return each.mean(), (gap > 0).float().mean()
