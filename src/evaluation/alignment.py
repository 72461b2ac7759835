"""Taking a prediction to the ground truth before measuring: wrist, Procrustes, HO-3D's scale rule.

All functions work on batches of point sets in float64 NumPy, any unit, and never change their input.
"""

from __future__ import annotations

import numpy as np

#: Added to each norm by the FreiHAND and HO-3D evaluators, which work in metres (docs/facts.md 2.1). It moves
#: aligned points by some 1e-5 mm, so to reproduce an evaluator to 1e-6 mm it must be in its unit.
EPSILON_METRES = 1e-8
#: The same 1e-8, of DexYCB's evaluator, which works in millimetres, as seen from our metres.
EPSILON_DEXYCB = 1e-11

WRIST = 0
MIDDLE_MCP = 9  # standard order; joint 4 in HO-3D's


def procrustes_align(predicted: np.ndarray, truth: np.ndarray, epsilon: float = EPSILON_METRES) -> np.ndarray:
    """Similarity alignment of each prediction to its truth: the rule FreiHAND, HO-3D and DexYCB share.

    Both sets are centred and divided by (Frobenius norm + epsilon); the orthogonal Procrustes problem
    (Schoenemann 1966) gives R = U V^T and the scale s = sum of singular values (docs/facts.md 2.1).
    **Reflections are allowed**: R may have determinant -1, a mirrored prediction has no error. A
    prediction whose points are all equal lands on the truth's centroid.

    Args:
        predicted, truth: (N,P,3), metres (or another unit), same frame.
        epsilon: in that unit; see EPSILON_METRES.

    Returns:
        (N,P,3) the predictions, aligned.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    centre = truth.mean(axis=1, keepdims=True)
    target = truth - centre
    moving = predicted - predicted.mean(axis=1, keepdims=True)
    target_norm = np.linalg.norm(target, axis=(1, 2), keepdims=True) + epsilon
    moving_norm = np.linalg.norm(moving, axis=(1, 2), keepdims=True) + epsilon
    moving = moving / moving_norm
    correlation = np.swapaxes(moving, 1, 2) @ (target / target_norm)
    left, singular, right = np.linalg.svd(correlation)
    scale = singular.sum(axis=1)[:, None, None]
    return moving @ (left @ right) * (scale * target_norm) + centre


def scale_translation_align(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """HO-3D's second alignment of joints (docs/facts.md 4): scale by one bone, then wrist on wrist.

    The scale is the truth's length from wrist to middle knuckle over the prediction's.

    Args:
        predicted, truth: (N,21,3), standard order.

    Returns:
        (N,21,3). A prediction whose bone has no length (all points equal) is only moved, not scaled.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    relative, target = predicted - predicted[:, :1], truth - truth[:, :1]
    length = np.linalg.norm(relative[:, MIDDLE_MCP], axis=-1)
    target_length = np.linalg.norm(target[:, MIDDLE_MCP], axis=-1)
    scale = np.divide(target_length, length, out=np.ones_like(length), where=length > 0)
    return relative * scale[:, None, None] + truth[:, :1]
