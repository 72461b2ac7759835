"""The surface that is rendered: a hand of MANO's joints with a forearm, wrist at the origin, root not turned.

Axes as MANO's right hand: fingers -x, back of the hand +y, thumb +z; metres.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from trimesh.remesh import subdivide_loop

from datasets.synthetic.scene.layout import wrist_loop
from template import HandAssets, HandModel, axis_angle_to_pose, load_hand_assets
from template.fine import FINE_PATH, FineHand, load_fine_mesh

ARM_LENGTH = 0.44  # metres behind the wrist


class PosedSurface(NamedTuple):
    """A hand in its own frame."""

    vertices: np.ndarray  # (V, 3) float32
    joints: np.ndarray  # (21, 3) standard order
    rest_wrist: np.ndarray  # (3,) J0(betas): transl = wrist - rest_wrist


def bend_forearm(vertices: np.ndarray, weight: np.ndarray, wrist: np.ndarray) -> np.ndarray:
    """Turn the forearm about the wrist (the origin), blended by ``weight`` (V,) 0 hand ... 1 forearm.

    The hand stays where it is. Pronation grows along the forearm, as skin does.
    """
    flexion, deviation, pronation = wrist
    x, y, z = vertices.T
    twist = pronation * np.clip((x - 0.02) / 0.2, 0, 1)
    cosine, sine = np.cos(twist), np.sin(twist)
    rolled = np.stack([x, cosine * y - sine * z, sine * y + cosine * z], 1)
    turned = rolled @ Rotation.from_euler("zy", [flexion, deviation]).as_matrix().T
    return vertices + weight[:, None] * (turned - vertices)


class HandSurface:
    """A hand with a forearm that can be posed; a subclass says which mesh.

    Attributes:
        faces: (F, 3).
        rest: (V, 3) flat rest hand of the mean shape with its forearm, wrist at the origin; rest_joints: (21, 3) of it.
        nails: (V,) 0..1, 1 on nails; None: they are painted on the back.
        backness: (V,) 0 palm ... 1 back; None: by the rest pose's normals.
    """

    nails: np.ndarray | None = None
    backness: np.ndarray | None = None

    def __init__(self, assets: HandAssets, faces: np.ndarray, count: int, rings: int) -> None:
        self.assets, self.hand, self._arm = assets, HandModel(assets), _Tube(faces, count, rings)
        self.faces = self._arm.faces

    def posed(self, fingers: np.ndarray, betas: np.ndarray, wrist: np.ndarray) -> PosedSurface:
        """Surface for finger axis-angles (45,), betas (10,) and the wrist's flexion, deviation, pronation, radians."""
        vertices, joints = self._points(fingers, betas)
        bent = bend_forearm(self._arm.extend(vertices - joints[0]), self._weight, wrist)
        return PosedSurface(self._refined(bent).astype(np.float32), joints - joints[0], joints[0])

    def _rest(self, vertices: np.ndarray, joints: np.ndarray) -> None:
        extended = self._arm.extend(vertices - joints[0])
        share = np.clip((extended[:, 0] + 0.008) / 0.05, 0, 1)
        self._weight = share * share * (3 - 2 * share)  # 0 on the hand, 1 on the forearm, smooth across the wrist
        self.rest, self.rest_joints = self._refined(extended), joints - joints[0]

    def _points(self, fingers: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices without the tube and joints (21, 3), float64 metres, of the hand model's frame."""
        raise NotImplementedError

    def _refined(self, vertices: np.ndarray) -> np.ndarray:
        return vertices


class FineSurface(HandSurface):
    """The fine mesh with nails and creases (`template.fine`), its forearm prolonged by a tube."""

    def __init__(self, assets: HandAssets, fine: dict[str, np.ndarray]) -> None:
        super().__init__(assets, fine["faces"], len(fine["vertices"]), 6)
        self._fine = FineHand(assets, fine)
        self._rest(fine["vertices"], self._points(np.zeros(45), np.zeros(10))[1])
        more = len(self.rest) - len(fine["vertices"])
        self.nails = np.append(fine["nail"], np.zeros(more)).astype(np.float32)
        around = fine["palmar"][self._arm.loop]
        self.backness = 1 - np.concatenate([fine["palmar"], np.tile(around, more // len(around))]).astype(np.float32)

    def _points(self, fingers: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pose, shape = _inputs(fingers, betas)
        return self._fine(pose, shape)[0].double().numpy(), self.hand.joints(pose, shape)[0].double().numpy()


class SubdividedHand(HandSurface):
    """The 778-vertex hand with a tube for a forearm, once subdivided (Loop 1987): for hands without a fine mesh."""

    def __init__(self, assets: HandAssets) -> None:
        super().__init__(assets, assets.faces, len(assets.v_template), 14)
        self._rest(*self._points(np.zeros(45), np.zeros(10)))
        self.faces = subdivide_loop(np.zeros((self._arm.count, 3)), self._arm.faces, 1)[1]

    def _points(self, fingers: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        output = self.hand(*_inputs(fingers, betas))
        return output.vertices[0].double().numpy(), output.joints[0].double().numpy()

    def _refined(self, vertices: np.ndarray) -> np.ndarray:
        return subdivide_loop(vertices, self._arm.faces, 1)[0]


def _inputs(fingers: np.ndarray, betas: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    pose = axis_angle_to_pose(torch.as_tensor(np.concatenate([np.zeros(3), fingers])[None], dtype=torch.float32))
    return pose, torch.as_tensor(betas[None], dtype=torch.float32)


class _Tube:
    """Rings that prolong a mesh from its one open loop to `ARM_LENGTH` behind the wrist."""

    def __init__(self, faces: np.ndarray, count: int, rings: int) -> None:
        self.loop, self._rings = wrist_loop(faces), rings
        self.count = count + rings * len(self.loop)
        ids = np.vstack([self.loop, count + np.arange(rings * len(self.loop)).reshape(rings, -1)])
        after = np.roll(ids, -1, axis=1)
        a, b, c, d = ids[:-1].ravel(), after[:-1].ravel(), ids[1:].ravel(), after[1:].ravel()
        tube = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        # A shared edge runs the other way in the neighbour's triangle.
        same_way = ((edges == self.loop[:2]).all(axis=1)).any()
        self.faces = np.vstack([faces, tube[:, ::-1] if same_way else tube])

    def extend(self, vertices: np.ndarray) -> np.ndarray:
        """The vertices (V, 3), wrist at the origin, root not turned, with the rings behind them."""
        loop = vertices[self.loop]
        centre = loop.mean(axis=0)
        along = (ARM_LENGTH - centre[0]) * (np.arange(1, self._rings + 1) / self._rings) ** 1.3
        flat = np.clip(along / 0.05, 0, 1)[:, None, None]
        spokes = (loop - centre) * (1 - flat * [1.0, 0, 0])
        rise = [np.clip((x - 0.02) / 0.17, 0, 1) for x in (centre[0], centre[0] + along)]
        width = [1 + 0.5 * r * r * (3 - 2 * r) for r in rise]
        growth = (width[1] / width[0])[:, None, None]
        rings = centre + along[:, None, None] * [1.0, 0, 0] + spokes * (growth * [1, 1, 1])
        return np.vstack([vertices, rings.reshape(-1, 3)])


@lru_cache(maxsize=2)
def hand_surface(mano_dir: str | None = None) -> HandSurface:
    """The fine hand, or the hand model of a folder (as `template.load_hand_assets`), subdivided."""
    if mano_dir is not None:
        return SubdividedHand(load_hand_assets(mano_dir, "right"))
    return FineSurface(load_hand_assets(FINE_PATH.with_name("stand_in_2.npz"), "right"), load_fine_mesh())
