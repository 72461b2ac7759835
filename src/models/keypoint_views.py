"""2D keypoints from several slightly moved views of one image, averaged.

A network's stride makes its error depend on where a joint falls among the cells; small shifts and turns
average that out. It costs one pass a view.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

#: (turn in degrees, shift in x and y as a share of the side) of each view; the first N are used.
VIEWS = ((0.0, 0.0), (0.0, 0.03), (0.0, -0.03), (12.0, 0.0), (-12.0, 0.0))

Keypoints = tuple[torch.Tensor, torch.Tensor]


def moved(image: torch.Tensor, turn_deg: float, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One view of images (B, 3, S, S), whose edge goes on outside, and the affine (2, 3) that leads back.

    The affine takes pixels of the view to pixels of the image (pixel centres at integers).
    """
    size = image.shape[-1]
    cosine, sine = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    # In [-1, 1] from edge to edge, as grid_sample without aligned corners counts.
    back = image.new_tensor([[cosine, -sine, 2 * shift], [sine, cosine, 2 * shift]])
    grid = F.affine_grid(back.expand(len(image), 2, 3), list(image.shape), align_corners=False)
    # The edge goes on outside: black strips, which a network did not see in training, cost what is to be gained.
    view = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    centre = (size - 1) / 2
    affine = back.clone()
    affine[:, 2] = size * shift + centre - centre * back[:, :2].sum(1)
    return view, affine


def average_views(
    decode: Callable[[torch.Tensor], Keypoints], image: torch.Tensor, first: Keypoints, views: int
) -> Keypoints:
    """Keypoints (B, J, 2) px and confidence (B, J): means over views, the former weighted by the latter.

    Args:
        decode: image (B, 3, S, S) in [-1, 1] to keypoints and confidence.
        first: what it gave for the image itself, which is the first of 2 to 5 views.

    Raises:
        ValueError: more views than there are.
    """
    if views > len(VIEWS):
        raise ValueError(f"views is {views}; choose 1 to {len(VIEWS)}")
    total = first[0] * first[1][..., None]
    weight = first[1]
    for turn_deg, shift in VIEWS[1:views]:
        view, back = moved(image, turn_deg, shift)
        keypoints, confidence = decode(view)
        # Written out: a matrix product would be rounded under autocast.
        led_back = keypoints[..., :1] * back[:, 0] + keypoints[..., 1:] * back[:, 1] + back[:, 2]
        total = total + led_back * confidence[..., None]
        weight = weight + confidence
    return total / weight[..., None], weight / views
