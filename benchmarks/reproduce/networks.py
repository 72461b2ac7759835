"""What is trained for the results table: each network, from where it starts, how long and how fast."""

from __future__ import annotations

from dataclasses import dataclass

#: One body for all networks, whatever stands on it.
BODY = ("--backbone", "regnet_x_400mf")
#: The fair recipe's view and optimisation, for networks whose own recipe has others: they are compared on equal terms.
SAME_VIEW = ("--input_size", "96", "--crop_size", "128", "--crop_scale", "1.5", "--augment", "fair")
SAME_STEPS = ("--optimizer", "adamw", "--weight_decay", "0.01", "--schedule", "cosine")
FRESH_HEADS = ("--init_parts", "backbone", "heatmaps", "feature")


@dataclass(frozen=True)
class Network:
    """One training.

    Attributes:
        model, recipe: of ``run.py``.
        budget: key of `Size.budgets`: ``heads`` go on from trained heads, ``fresh`` start with new ones.
        lr: learning rate for batches of 64 images; it grows with the square root of the batch.
        options: further options of ``run.py --phase train``.
        start: another network of the same seed to start from instead of the body.
        per_seed: trained for every seed; else once, with the first.
        is_late: trained after all others.
    """

    model: str
    recipe: str = "fair"
    budget: str = "heads"
    lr: float = 5e-4
    options: tuple[str, ...] = ()
    start: str | None = "body"
    per_seed: bool = True
    is_late: bool = False


def _paper(model: str) -> Network:
    return Network(model, "paper", "fresh", 1e-3, (*BODY, *SAME_VIEW, *SAME_STEPS))


def _mesh(model: str) -> Network:
    return Network(model, budget="mesh", lr=1e-3, options=(*BODY, *SAME_STEPS))


def _quick(model: str, budget: str, start: str = "body", lr: float = 5.66e-3) -> Network:
    """Heads that learn quickly on a body that learns slowly: rates tried on people of the training set."""
    return Network(model, budget=budget, lr=lr, options=(*BODY, *SAME_STEPS, "--body_lr", "5e-4"), start=start)


def _fresh(*options: str) -> Network:
    return Network("mano_identity", budget="fresh", lr=1e-3, options=(*FRESH_HEADS, *options), is_late=True)


NETWORKS = {
    "body": Network("mano_baseline", budget="body", lr=1e-3, start=None),
    "fair_baseline": Network("mano_baseline"),
    "fair_identity": Network("mano_identity"),
    "fair_confidence": Network("mano_baseline_conf", budget="confidence", lr=7.07e-4, start="fair_baseline"),
    "pose_2d": Network("pose_2d", budget="keypoints", per_seed=False),
    "paper_baseline": _paper("mano_baseline"),
    "paper_identity": _paper("mano_identity"),
    "cmr_pg": _mesh("cmr_pg"),
    "cmr_identity": _mesh("cmr_identity"),
    "metro": _quick("metro", "metro"),
    # The anonymous network goes on for as long as the one that is told the person: both are trained twice the budget.
    "metro_longer": _quick("metro", "metro", "metro", 2.83e-3),
    "metro_identity": _quick("metro_identity", "metro", "metro", 2.83e-3),
    "quick_cmr_pg": _quick("cmr_pg", "quick mesh"),
    "quick_cmr_identity": _quick("cmr_identity", "quick mesh"),
    "boukhayma": Network("boukhayma", "fair", "fresh", 1e-3, (*BODY, *SAME_STEPS), is_late=True),
    "blind": Network("mano_identity", options=("--blind_decoder",), is_late=True),
    "fresh_identity": _fresh(),
    "no_geometry": _fresh("--crop_geometry", "no"),
}
