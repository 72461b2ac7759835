"""The surface that is rendered: a hand of MANO's joints with a forearm, wrist at the origin, root not turned.

Axes as MANO's right hand: fingers -x, back of the hand +y, thumb +z; metres.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import scipy.sparse
import torch
from scipy.spatial.transform import Rotation

from datasets.synthetic.scene.layout import wrist_loop
from template import HandAssets, HandModel, axis_angle_to_pose, load_hand_assets

ARM_LENGTH, _RINGS = 0.44, 14  # metres behind the wrist's edge


class PosedSurface(NamedTuple):
    """A hand in its own frame."""

    vertices: np.ndarray  # (V, 3) float32
    joints: np.ndarray  # (21, 3) standard order
    rest_wrist: np.ndarray  # (3,) J0(betas): transl = wrist - rest_wrist


class HandSurface(Protocol):
    """What `cutout` needs of a hand."""

    assets: HandAssets
    faces: np.ndarray  # (F, 3)
    rest: np.ndarray  # (V, 3) flat rest hand of the mean shape with its forearm, wrist at the origin
    rest_joints: np.ndarray  # (21, 3) of it
    nails: np.ndarray | None  # (V,) 1 on nails; None: they are painted

    def posed(self, fingers: np.ndarray, betas: np.ndarray, wrist: np.ndarray) -> PosedSurface:
        """Surface for finger axis-angles (45,), betas (10,) and the wrist's (flexion, deviation, pronation), radians."""


def bend_forearm(vertices: np.ndarray, weight: np.ndarray, wrist: np.ndarray) -> np.ndarray:
    """Turn the forearm about the wrist (the origin), blended by ``weight`` (V,) 0 hand ... 1 forearm.

    The hand stays where it is. Pronation grows along the forearm, as skin does.
    """
    flexion, deviation, pronation = wrist
    turned = vertices @ Rotation.from_euler("zy", [flexion, deviation]).as_matrix().T
    twist = pronation * np.clip((vertices[:, 0] - 0.02) / 0.2, 0, 1)
    cosine, sine = np.cos(twist), np.sin(twist)
    rolled = np.stack([vertices[:, 0], cosine * vertices[:, 1] - sine * vertices[:, 2],
                       sine * vertices[:, 1] + cosine * vertices[:, 2]], 1)
    turned = rolled @ Rotation.from_euler("zy", [flexion, deviation]).as_matrix().T
    return vertices + weight[:, None] * (turned - vertices)


def forearm_weight(rest: np.ndarray) -> np.ndarray:
    """(V,) 0 on the hand, 1 on the forearm, smooth across the wrist; rest (V, 3) with the wrist at the origin."""
    share = np.clip((rest[:, 0] + 0.008) / 0.05, 0, 1)
    return share * share * (3 - 2 * share)


class SubdividedHand:
    """The 778-vertex hand with a tube for a forearm, once subdivided (Loop 1987): for hands without a fine mesh."""

    nails = None

    def __init__(self, assets: HandAssets) -> None:
        self.assets, self.hand = assets, HandModel(assets)
        self._loop = wrist_loop(assets.faces)
        faces = np.vstack([assets.faces, _tube_faces(self._loop, len(assets.v_template), _outward(assets, self._loop))])
        zero = torch.zeros(1, 10)
        joints = self.hand(torch.eye(3).expand(1, 16, 3, 3), zero).joints[0].double().numpy()
        coarse = self._with_arm(self.hand.rest(zero)[0].double().numpy() - joints[0])
        self._subdivision, self.faces = loop_subdivision(faces, len(coarse))
        self.rest, self.rest_joints = self._subdivision @ coarse, joints - joints[0]
        self._weight = forearm_weight(coarse)

    def posed(self, fingers: np.ndarray, betas: np.ndarray, wrist: np.ndarray) -> PosedSurface:
        """As `HandSurface.posed`."""
        pose = axis_angle_to_pose(torch.as_tensor(np.concatenate([np.zeros(3), fingers])[None], dtype=torch.float32))
        output = self.hand(pose, torch.as_tensor(betas[None], dtype=torch.float32))
        joints = output.joints[0].double().numpy()
        coarse = self._with_arm(output.vertices[0].double().numpy() - joints[0])
        bent = bend_forearm(coarse, self._weight, wrist)
        return PosedSurface((self._subdivision @ bent).astype(np.float32), joints - joints[0], joints[0])

    def _with_arm(self, hand: np.ndarray) -> np.ndarray:
        loop = hand[self._loop]
        along = ARM_LENGTH * (np.arange(1, _RINGS + 1) / _RINGS) ** 1.3
        centre = loop.mean(axis=0)
        spokes = (loop - centre) * [0, 1, 1]
        rise = np.clip(along / 0.17, 0, 1)
        growth = 1 + 0.5 * rise * rise * (3 - 2 * rise)
        rings = centre + along[:, None, None] * [1.0, 0, 0] + spokes * (growth[:, None, None] * [1, 1.12, 1])
        return np.vstack([hand, rings.reshape(-1, 3)])


def loop_subdivision(faces: np.ndarray, count: int) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """One step of Loop's scheme as a matrix (V', V) and the new faces (4F, 3)."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, inverse, times = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.ravel()
    opposite = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
    number = len(unique)
    rows, columns, values = [], [], []

    def add(row: np.ndarray, column: np.ndarray, value: np.ndarray) -> None:
        rows.append(row), columns.append(column), values.append(np.broadcast_to(value, row.shape))

    inner = times == 2
    for side in (0, 1):
        add(count + np.arange(number), unique[:, side], np.where(inner, 3 / 8, 1 / 2))
    add(count + inverse, opposite, np.where(inner[inverse], 1 / 8, 0.0))
    on_border = np.zeros(count, bool)
    on_border[unique[~inner].ravel()] = True
    valence = np.bincount(unique.ravel(), minlength=count)
    beta = (5 / 8 - (3 / 8 + np.cos(2 * np.pi / np.maximum(valence, 1)) / 4) ** 2) / np.maximum(valence, 1)
    add(np.arange(count), np.arange(count), np.where(on_border, 3 / 4, 1 - valence * beta))
    for first, second in ((0, 1), (1, 0)):
        row, column = unique[:, first], unique[:, second]
        add(row, column, np.where(on_border[row], np.where(inner, 0.0, 1 / 8), beta[row]))
    matrix = scipy.sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count + number, count)
    )
    middle = count + inverse.reshape(3, -1).T  # of the edges 01, 12, 20 of each face
    corners = [(faces[:, k], middle[:, k], middle[:, k - 1]) for k in range(3)]
    return matrix, np.vstack([np.stack(corner, 1) for corner in corners] + [middle])


def _tube_faces(loop: np.ndarray, start: int, flip: bool) -> np.ndarray:
    ids = np.vstack([loop, start + np.arange(_RINGS * len(loop)).reshape(_RINGS, -1)])
    after = np.roll(ids, -1, axis=1)
    a, b, c, d = ids[:-1].ravel(), after[:-1].ravel(), ids[1:].ravel(), after[1:].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    return faces[:, ::-1] if flip else faces


def _outward(assets: HandAssets, loop: np.ndarray) -> bool:
    """Whether the tube's faces must be turned round to agree with the hand's."""
    pair = {tuple(edge) for edge in np.concatenate([assets.faces[:, [0, 1]], assets.faces[:, [1, 2]],
                                                    assets.faces[:, [2, 0]]]).tolist()}
    return (int(loop[0]), int(loop[1])) in pair


@lru_cache(maxsize=2)
def hand_surface(mano_dir: str | None = None) -> HandSurface:
    """The finest surface there is for the hand in use."""
    return SubdividedHand(load_hand_assets(mano_dir, "right"))
