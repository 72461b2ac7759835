"""Robust losses on the squared, noise-normalised length s of a 2D residual.

Each gives the loss rho(s), equal to s for small s, with its derivative. ``scale`` is the
length, in standard deviations, beyond which a residual is distrusted.
"""

from __future__ import annotations

from template.components_first import Array

LOSSES = ("none", "huber", "geman_mcclure")


def robust_loss(squared: Array, kind: str, scale: float) -> tuple[Array, Array]:
    """rho and rho' of ``squared``, each of its shape (no unit).

    Huber: rho = s, or 2 c sqrt(s) - c^2 beyond c. Geman-McClure (Geman & McClure 1987, scaled so that
    rho'(0) = 1): rho = s / (1 + s / c^2), bounded by c^2.

    Raises:
        ValueError: if ``kind`` is not one of `LOSSES`.
    """
    if kind == "none":
        return squared, squared**0
    if kind == "huber":
        limit = scale * scale
        length = squared.clip(min=limit) ** 0.5
        return squared.clip(max=limit) + 2 * scale * (length - scale), scale / length
    if kind == "geman_mcclure":
        shrink = 1 / (1 + squared / (scale * scale))
        return squared * shrink, shrink * shrink
    raise ValueError(f"robust loss {kind!r} is unknown; choose one of {LOSSES}")


def radial_curvature(squared: Array, kind: str, scale: float) -> Array:
    """rho's curvature along the residual over rho', 1 + 2 s rho'' / rho' (no unit), of s = ``squared``; of its shape.

    One where a residual is trusted fully, less where it begins to be doubted, negative where doubt outweighs it.
    """
    if kind == "none":
        return squared**0
    ratio = squared / (scale * scale)
    if kind == "huber":
        return (ratio <= 1) * squared**0
    return (1 - 3 * ratio) / (1 + ratio)
