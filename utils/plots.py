"""Curves of a metric against something, with their spread and with reference lines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.drawing.figures import new_figure, save_figure

#: Colours of the curves in order; told apart with the common colour-vision deficiencies too.
CURVE_COLOURS = ("#1f7a8c", "#e07a35", "#7b4fa3", "#3a9a5b", "#c0392b", "#555555")
REFERENCE_STYLES = ("--", ":", "-.")


@dataclass
class Curve:
    """Points of one curve: x (N,) and y (N,); low and high (N,) bound the shaded band, or are None."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def curve_plot(
    path: str | os.PathLike,
    curves: Mapping[str, Curve],
    x_label: str,
    y_label: str,
    title: str = "",
    log_x: bool = False,
    references: Mapping[str, float] | None = None,
    from_zero: bool = True,
) -> None:
    """Write a picture of one or more curves, atomically.

    Args:
        path: picture; the suffix chooses the format.
        curves: label -> curve.
        x_label, y_label: with their units, e.g. "images", "zero-pose MPVPE (mm)".
        log_x: logarithmic x with a tick at every x that occurs.
        references: label -> y of a horizontal line, e.g. the mean shape's error.
        from_zero: let y start at 0, so that the picture does not flatter.

    Raises:
        ValueError: if a curve's parts differ in length or there is none.
    """
    if not curves:
        raise ValueError(f"{path}: there is no curve to draw")
    figure = new_figure(7.0, 4.4)
    axes = figure.subplots()
    for colour, (label, curve) in zip(_repeated(CURVE_COLOURS, len(curves)), curves.items()):
        parts = [curve.x, curve.y, *(part for part in (curve.low, curve.high) if part is not None)]
        if len({len(part) for part in parts}) > 1 or (curve.low is None) != (curve.high is None):
            raise ValueError(f"{path}: curve {label!r} has parts of lengths {[len(part) for part in parts]}")
        axes.plot(curve.x, curve.y, color=colour, marker="o", markersize=4, linewidth=1.8, label=label)
        if curve.low is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    for style, (label, value) in zip(_repeated(REFERENCE_STYLES, len(references or {})), (references or {}).items()):
        axes.axhline(value, color="0.35", linestyle=style, linewidth=1.3, label=label)
    if log_x:
        axes.set_xscale("log")
        ticks = sorted({float(x) for curve in curves.values() for x in curve.x})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    if from_zero:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=12, loc="left")
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save_figure(path, figure)


def _repeated(values: Sequence[str], count: int) -> list[str]:
    return [values[index] for index in np.arange(count) % len(values)]
