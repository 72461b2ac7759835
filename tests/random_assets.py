"""A random but valid hand of MANO's shapes for tests: no symmetry or zero that could hide an error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from template import HandAssets
from utils.joints import TIP_VERTICES, TIP_VERTICES_LEFT


def random_assets(seed: int = 0, side: str = "right", tips_on_own_finger: bool = False) -> HandAssets:
    """Arrays of MANO's shapes and rough magnitudes; skinning and regressor rows sparse, of sum 1; volume positive.

    ``tips_on_own_finger``: the fingertips of every set follow their own finger's joints and the wrist alone.
    """
    rng = np.random.default_rng(seed)
    weights = _sparse_rows(rng, 778, 16, 4)
    if tips_on_own_finger:
        for tips in (*TIP_VERTICES.values(), *TIP_VERTICES_LEFT.values()):
            for tip, first in zip(tips, (13, 1, 4, 10, 7), strict=True):
                weights[tip] = 0.0
                weights[tip, [0, first, first + 1, first + 2]] = rng.dirichlet(np.ones(4))
    regressor = _sparse_rows(rng, 16, 778, 30)
    assets = HandAssets(
        v_template=rng.normal(scale=0.05, size=(778, 3)) + [0.09, 0.01, 0.01],
        shapedirs=rng.normal(scale=0.003, size=(778, 3, 10)),
        posedirs=rng.normal(scale=0.001, size=(778, 3, 135)),
        J_regressor=regressor,
        weights=weights,
        faces=np.stack([rng.permutation(778)[:3] for _ in range(1538)]).astype(np.int64),
        hands_components=np.linalg.qr(rng.normal(size=(45, 45)))[0] * np.linspace(1.3, 0.1, 45)[:, None],
        hands_mean=rng.normal(scale=0.3, size=45),
        side=side,
        name="MANO",
    )
    volume = np.linalg.det((assets.v_template - assets.v_template.mean(axis=0))[assets.faces]).sum()
    return assets if volume > 0 else replace(assets, faces=assets.faces[:, ::-1].copy())


def mano_dictionary(assets: HandAssets) -> dict[str, np.ndarray]:
    """The arrays under the keys and dtypes of a MANO file."""
    parents = np.array([2**32 - 1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14], dtype=np.uint32)
    return {
        "v_template": assets.v_template,
        "shapedirs": assets.shapedirs,
        "posedirs": assets.posedirs,
        "J_regressor": assets.J_regressor,
        "weights": assets.weights,
        "f": assets.faces.astype(np.uint32),
        "hands_components": assets.hands_components,
        "hands_mean": assets.hands_mean,
        "kintree_table": np.stack([parents, np.arange(16, dtype=np.uint32)]),
    }


def _sparse_rows(rng: np.random.Generator, rows: int, columns: int, entries: int) -> np.ndarray:
    matrix = np.zeros((rows, columns))
    for row in matrix:
        row[rng.permutation(columns)[:entries]] = rng.dirichlet(np.ones(entries))
    return matrix
