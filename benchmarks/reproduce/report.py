"""Rows of all seeds to ``results.json`` and ``results.md``: means and spread over seeds, intervals over subjects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.reproduce.sizes import ROWS, Row, Size

Rows = list[dict[str, Any]]

HEADINGS = {
    "mpjpe_mm": "MPJPE",
    "mpvpe_mm": "MPVPE",
    "pa_mpjpe_mm": "PA-MPJPE",
    "auc": "AUC",
    "zero_pose_mpvpe_mm": "zero-pose MPVPE",
}
#: In the camera's frame: of the fitted hand where a row is fitted, else of a mesh registered by its keypoints.
CAMERA = "abs_mpjpe_mm"
GROUPS = {
    "paper": "Paper recipe (`--recipe paper`): its networks and losses, on the same body at 96 px",
    "fair": "Fair recipe (`--recipe fair`, default)",
    "mesh": "Mesh convolution and the comparison method, on the same body",
    "ablation": "Ablations: one thing changed at a time",
    "shipped body": "METRO, and CMR as it, on the shipped body",
}
REPLICATES = 4000


def interval(per_subject: np.ndarray, reference: np.ndarray | None = None) -> tuple[float, float]:
    """95% percentile bootstrap over subjects of a mean, or of its change in percent of a reference.

    Args:
        per_subject: (seeds, subjects) means; seeds are averaged, subjects resampled.
        reference: the same of the row compared with.
    """
    values = per_subject.mean(0)
    drawn = np.random.default_rng(0).integers(0, len(values), (REPLICATES, len(values)))
    means = values[drawn].mean(1)
    if reference is not None:
        means = 100 * (means / reference.mean(0)[drawn].mean(1) - 1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def flat_rows(rows: Iterable[dict[str, Any]]) -> Rows:
    """One row a network state: ``recipe``, ``model``, ``shape``, ``fitted``, ``seed`` and the metrics by name."""
    flat = []
    for row in rows:
        names = {key: row[key] for key in ("group", "recipe", "model", "shape", "seed")}
        for fitted in (False, True):
            scores = row.get("fitted" if fitted else "network")
            if scores is not None:
                flat.append({**names, "fitted": fitted, **scores["mean"], "n_images": scores["n_images"]})
    return flat


def per_subject(
    rows: Rows, row: Row, metric: str, fitted: bool = False, seeds: set[int] | None = None
) -> np.ndarray | None:
    """(seeds, subjects) of one metric of one row, of these seeds or all; None if the row lacks it."""
    part = "fitted" if fitted else "network"
    found = [
        r[part]["per_subject"][metric]
        for r in rows
        if (r["group"], r["model"], r["shape"]) == (row.group, row.model, row.shape)
        and (seeds is None or r["seed"] in seeds)
        and part in r
        and metric in r[part]["per_subject"]
    ]
    return np.array(found) if found else None


def _cell(values: np.ndarray | None, digits: int) -> str:
    if values is None:
        return ""
    seeds = values.mean(1)
    spread = f" ± {seeds.std(ddof=1):.{digits}f}" if len(seeds) > 1 else ""
    return f"{seeds.mean():.{digits}f}{spread}"


def table(rows: Rows, group: str) -> str:
    """Markdown table of one group; the first row of the group is what the others are compared with."""
    chosen = [row for row in ROWS if row.group == group]
    heads = ["model", "shape", "seeds", *HEADINGS.values(), "MPJPE, 95% over subjects", "change, 95%"]
    if any(row.fits for row in chosen):
        heads += ["fitted MPJPE", "fitted MPVPE", "fitted PA-MPJPE"]
    heads.append("camera MPJPE")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in chosen:
        scores = {metric: per_subject(rows, row, metric) for metric in HEADINGS}
        cells = [row.model, row.shape, "0" if scores["mpjpe_mm"] is None else str(len(scores["mpjpe_mm"]))]
        cells += [_cell(scores[metric], 3 if metric == "auc" else 2) for metric in HEADINGS]
        main = scores["mpjpe_mm"]
        seeds = {r["seed"] for r in rows if (r["group"], r["model"], r["shape"]) == (group, row.model, row.shape)}
        reference = per_subject(rows, chosen[0], "mpjpe_mm", seeds=seeds)
        if main is None or reference is None:
            cells += ["", ""]
        else:
            low, high = interval(main)
            cells.append(f"[{low:.2f}, {high:.2f}]")
            change = 100 * (main.mean() / reference.mean() - 1)
            low, high = interval(main, reference)
            cells.append("" if row is chosen[0] else f"{change:+.1f}% [{low:+.1f}, {high:+.1f}]")
        if "fitted MPJPE" in heads:
            cells += [_cell(per_subject(rows, row, m, True), 2) for m in ("mpjpe_mm", "mpvpe_mm", "pa_mpjpe_mm")]
        cells.append(_cell(per_subject(rows, row, CAMERA, row.fits), 1) or "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(rows: Rows, whole_trainings: bool = False) -> list[tuple[str, str, str, bool]]:
    """The project's targets: what, wanted, found, reached; higher ones for whole trainings on a GPU."""
    least_gain, most_error = (15, 8) if whole_trainings else (8, 12)

    def mean(shape: str, model: str = "mano_identity", fitted: bool = False, group: str = "fair") -> float:
        row = next(r for r in ROWS if (r.group, r.model, r.shape) == (group, model, shape))
        values = per_subject(rows, row, "mpjpe_mm", fitted)
        return float("nan") if values is None else float(values.mean())

    baseline, true = mean("predicted", "mano_baseline"), mean("true")
    joint, ruler = mean("calibrated: joint"), mean("calibrated: joint + ruler")
    gain = 100 * (1 - true / baseline)
    share = (baseline - joint) / (baseline - true)
    far = 100 * (ruler / true - 1)
    fitted = 100 * (1 - mean("calibrated: joint", fitted=True) / joint)
    wrong = 100 * (mean("wrong", group="ablation") / true - 1)
    cmr = 100 * (1 - mean("true", "cmr_identity", group="mesh") / mean("none", "cmr_pg", group="mesh"))
    return [
        ("true shape against baseline", f"{least_gain}% lower", f"{gain:.1f}% lower", gain >= least_gain),
        ("calibrated (joint + ruler) against true shape", "within 3%", f"{far:+.1f}%", far <= 3),
        ("calibrated (joint): share of the true shape's gain", "two thirds", f"{share:.2f}", share >= 2 / 3),
        ("fitted against network, calibrated (joint)", "10% lower", f"{fitted:.1f}% lower", fitted >= 10),
        ("true shape, MPJPE", f"{most_error} mm", f"{true:.2f} mm", true <= most_error),
        ("another person's shape", "must hurt", f"{wrong:+.1f}%", wrong > 0),
        ("`cmr_identity` against `cmr_pg`", "better", f"{cmr:.1f}% lower", cmr > 0),
    ]


def _seeds_are(size: Size) -> str:
    if size.body is None:
        return "Seeds are whole trainings: each has a body of its own, from nothing, from which all its networks go on."
    return f"All networks go on from one shared body (`{size.body}`); the seeds are those of the continuations."


def markdown(size: Size, rows: Rows, facts: dict[str, Any]) -> str:
    n_subjects = len(rows[0]["network"]["per_subject"]["mpjpe_mm"])
    lines = [
        f"# Results: {size.name}",
        "",
        f"Made by `{facts['command']}` on {facts['machine']}. "
        f"{facts['n_images']} images of {n_subjects} {facts['people']} that no network has seen; "
        f"seeds {', '.join(map(str, size.seeds))}.",
        "",
        f"{_seeds_are(size)} The trainings took {facts['training_hours']} hours added up, several at a time. "
        + "".join(f"On {device}: {', '.join(names)}. " for device, names in facts["trained_on"].items())
        + "Their lengths: "
        + ", ".join(f"{name} {budget}" for name, budget in size.budgets.items())
        + " (`heads`: from trained heads; `fresh`, `mesh`: with new ones). The 2D model is trained once.",
        "",
        "Millimetres, relative to the wrist. `a ± b`: mean and standard deviation over seeds. Intervals: bootstrap "
        "over subjects of the mean over seeds. `change`: of MPJPE, against the first row of its table. *fitted*: pose "
        "and translation fitted to the 2D model's keypoints (lm), the shape held. Calibration: 20 unlabelled images of "
        "sequences that are not evaluated; `ruler`: the hand's length with an error of 3 mm. The mesh family is "
        "measured on joints regressed from its meshes. A row is compared over the seeds that it has. *camera MPJPE*: "
        "in the camera's frame, of the fitted hand or of the mesh registered by its keypoints; - where nothing says "
        "how far a hand is, or it was not measured.",
    ]
    for group in size.groups:
        lines += ["", f"## {GROUPS[group]}", "", table(rows, group)]
    lines += ["", "## Targets", "", "| what | wanted | found | reached |", "|---|---|---|---|"]
    lines += [f"| {w} | {t} | {f} | {'yes' if ok else 'no'} |" for w, t, f, ok in verdicts(rows, size.body is None)]
    return "\n".join(lines) + "\n"
