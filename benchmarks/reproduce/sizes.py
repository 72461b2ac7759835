"""What is measured: the rows of the table, and how large a run is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.reproduce.networks import NETWORKS, Network


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        group: which table it is in.
        recipe, model, shape: what ``results.json`` calls it. ``shape``: ``predicted``, ``true``, ``mean shape``,
            ``wrong`` (the next subject's), or ``calibrated: METHOD[, N images]``.
        network: key of `NETWORKS`.
        fits: also after fitting to the 2D model's keypoints with the shape held.
    """

    group: str
    recipe: str
    model: str
    shape: str
    network: str
    fits: bool = False


ROWS = (
    Row("paper", "paper", "mano_baseline", "predicted", "paper_baseline", True),
    Row("paper", "paper", "mano_identity", "mean shape", "paper_identity", True),
    Row("paper", "paper", "mano_identity", "calibrated: mean", "paper_identity", True),
    Row("paper", "paper", "mano_identity", "true", "paper_identity", True),
    Row("fair", "fair", "mano_baseline", "predicted", "fair_confidence", True),
    Row("fair", "fair", "mano_identity", "mean shape", "fair_identity", True),
    Row("fair", "fair", "mano_identity", "calibrated: mean", "fair_identity", True),
    Row("fair", "fair", "mano_identity", "calibrated: confidence", "fair_identity", True),
    Row("fair", "fair", "mano_identity", "calibrated: joint", "fair_identity", True),
    Row("fair", "fair", "mano_identity", "calibrated: joint + ruler", "fair_identity", True),
    Row("fair", "fair", "mano_identity", "true", "fair_identity", True),
    Row("mesh", "fair", "boukhayma", "predicted", "boukhayma"),
    Row("mesh", "fair", "cmr_pg", "none", "cmr_pg"),
    Row("mesh", "fair", "cmr_identity", "calibrated: joint", "cmr_identity"),
    Row("mesh", "fair", "cmr_identity", "true", "cmr_identity"),
    Row("mesh", "fair", "metro", "none", "metro_longer"),
    Row("mesh", "fair", "metro_identity", "calibrated: joint", "metro_identity"),
    Row("mesh", "fair", "metro_identity", "true", "metro_identity"),
    Row("ablation", "fair", "mano_identity", "true", "fair_identity"),
    Row("ablation", "fair", "mano_identity, pose head does not see the shape", "true", "blind"),
    Row("ablation", "fair", "mano_identity, fresh heads", "true", "fresh_identity"),
    Row("ablation", "fair", "mano_identity, fresh heads, no crop geometry", "true", "no_geometry"),
    Row("ablation", "fair", "mano_identity", "calibrated: joint, 1 image", "fair_identity"),
    Row("ablation", "fair", "mano_identity", "calibrated: joint, 5 images", "fair_identity"),
    Row("ablation", "fair", "mano_identity", "calibrated: joint", "fair_identity"),
    Row("ablation", "fair", "mano_identity", "calibrated: joint, 100 images", "fair_identity"),
    Row("ablation", "fair", "mano_identity", "wrong", "fair_identity"),
    Row("shipped body", "fair", "metro", "none", "metro_longer"),
    Row("shipped body", "fair", "metro_identity", "mean shape", "metro_identity"),
    Row("shipped body", "fair", "metro_identity", "calibrated: joint", "metro_identity"),
    Row("shipped body", "fair", "metro_identity", "true", "metro_identity"),
    Row("shipped body", "fair", "cmr_pg", "none", "quick_cmr_pg"),
    Row("shipped body", "fair", "cmr_identity", "calibrated: joint", "quick_cmr_identity"),
    Row("shipped body", "fair", "cmr_identity", "true", "quick_cmr_identity"),
)
#: Networks that calibrate and fit for the others; `prior.make_prior` measures them.
MEASURING = {"fair_confidence", "pose_2d"}
#: Groups of a run that makes the whole table.
WHOLE_TABLE = ("paper", "fair", "mesh", "ablation")


class Budget(NamedTuple):
    """How long a network is trained: passes over so many images of the training set, evenly spread (None: all)."""

    images: int | None
    epochs: int = 1
    batch_size: int = 64

    def __str__(self) -> str:
        images = "all images" if self.images is None else f"{self.images:,} images"
        return images if self.epochs == 1 else f"{self.epochs} x {images}"


@dataclass(frozen=True)
class Size:
    """How large a run is.

    Attributes:
        name: also the prefix of the run folders and the folder in ``out/results``.
        train_root, cache: training data (in DexYCB's layout) and its crop cache.
        train_data: options of the synthetic writer that makes it; None: it is there, or a script makes it.
        test_root, test_split: people whom no network has seen.
        test_data: options of the synthetic writer that makes it; None: it is there.
        body: checkpoint that all networks start from; None: a body is trained for every seed, so that seeds are
            whole trainings.
        budgets: by `Network.budget`.
        seeds: of the continuations, or of whole trainings.
        workers: processes of a training (under torchrun, if more than one).
        parallel: trainings side by side; with more than one, scores are made beside them too.
        from_nothing: networks that do not start from the body.
        only: train only these networks and what they start from; None: all.
        evaluated: images a subject that are evaluated; calibration takes others.
        device: of trainings and predictions.
        val_images: validation images after an epoch.
        prior: population file for calibration and fitting; None: measured with the run's own networks.
        weights: files of networks that are there, by network, to evaluate instead of trainings.
        groups: of the rows.
    """

    name: str
    train_root: Path
    test_root: Path
    body: Path | None
    budgets: dict[str, Budget]
    seeds: tuple[int, ...]
    cache: Path
    train_data: dict[str, int | float] | None = None
    test_data: dict[str, int | float] | None = None
    test_split: str = "all"
    workers: int = 2
    parallel: int = 1
    from_nothing: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    device: str = "auto"
    evaluated: int = 72
    val_images: int = 500
    prior: Path | None = None
    weights: dict[str, Path] | None = None
    groups: tuple[str, ...] = WHOLE_TABLE

    @property
    def networks(self) -> dict[str, Network]:
        """What is trained."""
        known = NETWORKS | {name: replace(NETWORKS[name], start=None, lr=1e-3) for name in self.from_nothing}
        rows = {row.network for row in ROWS if row.group in self.groups}
        wanted = rows | MEASURING if self.only is None else set(self.only)
        wanted -= set(self.weights or ())
        for _ in known:
            wanted |= {known[name].start for name in wanted if known[name].start is not None}
        if self.body is not None:
            wanted.discard("body")
        return {name: network for name, network in known.items() if name in wanted}

    @property
    def folder(self) -> Path:
        """Where predictions and rows are kept between runs."""
        return Path("out/results") / self.name

    def experiment(self, network: str, seed: int) -> str:
        """Name of the run folder of a network."""
        return f"{self.name}_{network}_seed{seed}"


#: How every synthetic set here is rendered.
LOOK = {"left_fraction": 0.0, "render_scale": 0.5, "quality": 88}

FULL = Size(
    name="results",
    train_root=Path("data/training_dex_ycb"),
    test_root=Path("data/results_dex_ycb"),
    test_data={"num_subjects": 22, "num_sequences": 12, "num_frames": 3, "seed": 2026, **LOOK},
    body=Path("out/dex_ycb/ship_body_long/checkpoints/last.pt"),
    budgets={
        **dict.fromkeys(("heads", "fresh"), Budget(28160)),
        "mesh": Budget(18816),
        "metro": Budget(12544, batch_size=32),
        "confidence": Budget(28160, batch_size=128),
        "keypoints": Budget(56640),
    },
    seeds=(0, 1, 2),
    cache=Path("data/cache"),
)

#: With a GPU: every seed has a body of its own, and everything before the continuations is trained longer.
WHOLE = replace(
    FULL,
    name="whole",
    body=None,
    budgets={**FULL.budgets, "body": Budget(None, 9, 256), "keypoints": Budget(None, 10, 256)},
    from_nothing=("pose_2d",),
    workers=1,
    parallel=8,
    val_images=1000,
)

#: The rows whose networks ship, as they ship. The shipped `cmr_identity` was trained longer than the table's.
SHIPPED = replace(
    WHOLE,
    name="shipped",
    seeds=(0,),
    parallel=1,
    device="cpu",
    prior=Path("weights/prior.npz"),
    weights={
        network: Path("weights") / f"{name}.safetensors"
        for network, name in {
            "fair_confidence": "mano_baseline_conf",
            "fair_identity": "mano_identity",
            "pose_2d": "pose_2d",
            "cmr_identity": "cmr_identity",
        }.items()
    },
)

#: Rows that were added later than the others and cannot share their bodies, which are not in git.
ON_SHIPPED_BODY = replace(
    FULL,
    name="shipped_body",
    body=Path("weights/mano_baseline_conf.safetensors"),
    budgets={**FULL.budgets, "quick mesh": Budget(2 * 12544, batch_size=32)},  # as METRO's two trainings
    groups=("shipped body",),
    workers=1,
    parallel=2,
    device="cpu",
    prior=Path("weights/prior.npz"),
    weights={name: SHIPPED.weights[name] for name in ("fair_confidence", "pose_2d")},
)

QUICK = Size(
    name="quick",
    train_root=Path("data/quick_training"),
    train_data={"num_subjects": 24, "num_sequences": 4, "num_frames": 1, "seed": 3, **LOOK},
    test_root=Path("data/quick_unseen"),
    test_data={"num_subjects": 20, "num_sequences": 4, "num_frames": 2, "seed": 2027, **LOOK},
    body=Path("weights/mano_baseline_conf.safetensors"),
    budgets={
        **dict.fromkeys(("heads", "keypoints"), Budget(512)),
        **dict.fromkeys(("fresh", "mesh"), Budget(768)),
        "metro": Budget(768, batch_size=32),
        "confidence": Budget(512, batch_size=128),
    },
    seeds=(0, 1),
    cache=Path("data/quick_cache"),
    workers=1,
    evaluated=16,
    val_images=32,
    prior=Path("weights/prior.npz"),
)
