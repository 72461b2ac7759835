"""Pictures of a scene from one camera: rays only where something moves, fine ones only on the hand.

Per image: a coarse pass (one ray in `COARSE` x `COARSE` pixels) over everything that moves finds what
is hit, gives the soft shadows on the table and the parts far from the hand; a fine pass casts rays
inside the hand's box, and there only near blocks that the coarse pass hit. All else is the still
picture made once a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from datasets.synthetic.scene.appearance import SKIN_SIZE
from datasets.synthetic.scene.background import view_table
from datasets.synthetic.scene.cameras import IMAGE_HEIGHT, IMAGE_WIDTH
from datasets.synthetic.scene.layout import Scene, Surface
from datasets.synthetic.scene.shading import Lights, Sensor, shade
from utils.camera import project_numpy, square_box
from utils.drawing.ray_casting import Hits, RayCaster, block_centres, interpolate, pixel_rays

COARSE = 4
HAND_BOX = 2.6  # side of the finely rendered square over the joint box; the networks' crop is 2.0
_SHADOW_OFFSET = 0.003  # metres along the normal, so that a facet does not shadow its smooth neighbour

_GOLDEN = np.pi * (3 - np.sqrt(5)) * np.arange(32)
_HEIGHT = 1 - (np.arange(32) + 0.5) / 16
#: 32 directions all around (a Fibonacci lattice), in which ambient light is looked for.
_SKY = np.stack(
    [np.cos(_GOLDEN) * np.sqrt(1 - _HEIGHT**2), np.sin(_GOLDEN) * np.sqrt(1 - _HEIGHT**2), _HEIGHT], axis=1
).astype(np.float32)

Window = tuple[int, int, int, int]  # left, top, right, bottom, half open


@dataclass(frozen=True)
class MovingMesh:
    """A frame's mesh, ready for rays; shared by all cameras."""

    surface: Surface
    vertices: np.ndarray
    attributes: np.ndarray  # (V, 7) float32: normal, texture, openness to the sky
    caster: RayCaster

    @staticmethod
    def of(surface: Surface, vertices: np.ndarray, normals: np.ndarray) -> MovingMesh:
        """Build the ray caster of a surface at these positions."""
        caster = RayCaster(vertices, surface.faces)
        openness = np.ones(len(vertices), np.float32)
        openness[: surface.n_folded] = _openness(caster, vertices[: surface.n_folded], normals[: surface.n_folded])
        return MovingMesh(surface, vertices, np.column_stack([normals, surface.texture, openness]), caster)


class Layer(NamedTuple):
    """What a grid of rays saw; colour is premultiplied (zero where nothing was seen)."""

    colour: np.ndarray  # (h, w, 3) float32
    alpha: np.ndarray  # (h, w) float32, 0 or 1
    label: np.ndarray  # (h, w) uint8
    depth: np.ndarray  # (h, w) float32, inf where nothing was seen


class Picture(NamedTuple):
    """One camera's image of one frame."""

    bgr: np.ndarray  # (480, 640, 3) uint8
    seg: np.ndarray  # (480, 640) uint8 as in DexYCB's labels
    depth: np.ndarray | None  # (480, 640) float32 metres, 0 where unknown


class CameraView:
    """One camera in one sequence: its still picture, and every frame on top of it."""

    def __init__(
        self,
        scene: Scene,
        K: np.ndarray,
        camera_to_table: np.ndarray,
        table: np.ndarray,
        room: np.ndarray,
        lights: Lights,
        sensor: Sensor,
        generator: np.random.Generator,
        step: int = 1,
    ) -> None:
        self._scene, self._K, self._pose = scene, K, camera_to_table[:3]
        self._table_to_camera = np.linalg.inv(camera_to_table)[:3]
        self._lights, self._sensor, self._generator, self._step = lights, sensor, generator, step
        view = view_table(table, room, K, camera_to_table)
        self._radiance = view.colour * (1 + view.is_table[..., None] * (lights.on_table - 1)).astype(np.float32)
        self._seg = np.zeros((IMAGE_HEIGHT, IMAGE_WIDTH), np.uint8)
        self._depth = self._table_depth = view.depth
        self._add_standing_objects()
        self._still = sensor.develop(self._radiance, sensor.random_corner(generator))

    def render(self, mesh: MovingMesh, joints: np.ndarray | None, with_depth: bool = False) -> Picture:
        """The picture of one frame; ``joints`` (21, 3) table frame says where the hand is, None: no hand."""
        image, seg = self._still.copy(), self._seg.copy()
        depth = self._depth.copy() if with_depth else None
        moving = _window(self._project(mesh.vertices), COARSE)
        if moving is not None:
            fine = None
            if joints is not None:
                centre_x, centre_y, side = square_box(self._project(joints), HAND_BOX)
                half = side / 2
                corners = np.array([[centre_x - half, centre_y - half], [centre_x + half, centre_y + half]])
                fine = _intersect(_window(corners, COARSE), moving)
            self._paint(mesh, self._with_shadow(moving, mesh.vertices), fine, image, seg, depth)
        if depth is not None:
            depth = np.where(np.isfinite(depth), depth, 0)
        return Picture(image, seg, depth)

    def _paint(
        self,
        mesh: MovingMesh,
        region: Window,
        fine: Window | None,
        image: np.ndarray,
        seg: np.ndarray,
        depth: np.ndarray | None,
    ) -> None:
        left, top, right, bottom = region
        inside = np.s_[top:bottom, left:right]
        coarse = self._trace(mesh, region, COARSE, None, self._depth)
        shadow = _enlarge(self._table_shadow(mesh, region), COARSE)
        radiance = self._radiance[inside] * (1 - shadow[..., None] * self._lights.shadow_share.astype(np.float32))
        empty = None if fine is None else radiance[_within(fine, region)].copy()
        _lay(radiance, seg[inside], None if depth is None else depth[inside], coarse, COARSE)
        if fine is not None:
            blocks = [value // COARSE for value in (fine[1] - top, fine[3] - top, fine[0] - left, fine[2] - left)]
            near = cv2.dilate(coarse.alpha, np.ones((3, 3)))[blocks[0] : blocks[1], blocks[2] : blocks[3]] > 0
            layer = self._trace(mesh, fine, self._step, near, self._depth)
            target = np.s_[fine[1] : fine[3], fine[0] : fine[2]]
            radiance[_within(fine, region)], seg[target] = empty, self._seg[target]
            if depth is not None:
                depth[target] = self._depth[target]
            part = None if depth is None else depth[target]
            _lay(radiance[_within(fine, region)], seg[target], part, layer, self._step)
        image[inside] = self._sensor.develop(radiance, self._sensor.random_corner(self._generator))

    def _trace(
        self, mesh: MovingMesh, window: Window, step: int, blocks: np.ndarray | None, still_depth: np.ndarray
    ) -> Layer:
        """Cast one ray per step x step pixels of the window, only in the named coarse blocks."""
        left, top, right, bottom = window
        columns, rows = block_centres(left, right, step), block_centres(top, bottom, step)
        shape = (len(rows), len(columns))
        if blocks is None:
            chosen = np.arange(shape[0] * shape[1])
        else:
            chosen = np.flatnonzero(_enlarge(blocks.astype(np.uint8), COARSE // step, cv2.INTER_NEAREST))
        row, column = np.divmod(chosen, shape[1])
        pixels = np.stack([columns[column], rows[row]], axis=1)
        origin, directions = pixel_rays(self._K, pixels, self._pose)
        hits = mesh.caster.cast(np.broadcast_to(origin, directions.shape), directions)
        still = still_depth[np.round(pixels[:, 1]).astype(int), np.round(pixels[:, 0]).astype(int)]
        visible = np.flatnonzero((hits.face >= 0) & (hits.distance < still))
        layer = Layer(
            np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.uint8),
            np.full(shape, np.inf, np.float32),
        )  # fmt: skip
        if len(visible):
            hits = Hits(hits.face[visible], hits.barycentric[visible], hits.distance[visible])
            places = chosen[visible]
            layer.colour.reshape(-1, 3)[places] = surface_colour(
                mesh, self._scene.texels, self._lights, hits, origin, directions[visible]
            )
            layer.alpha.ravel()[places] = 1
            layer.label.ravel()[places] = mesh.surface.labels[hits.face]
            layer.depth.ravel()[places] = hits.distance
        return layer

    def _table_shadow(self, mesh: MovingMesh, region: Window) -> np.ndarray:
        """(h, w) float32 0..1, one value per coarse block: how much of the key light the table misses."""
        left, top, right, bottom = region
        columns, rows = block_centres(left, right, COARSE), block_centres(top, bottom, COARSE)
        u, v = np.meshgrid(columns, rows)
        depth = self._table_depth[np.round(v).astype(int), np.round(u).astype(int)].ravel()
        on_table = np.flatnonzero(np.isfinite(depth))
        origin, directions = pixel_rays(self._K, np.stack([u.ravel(), v.ravel()], 1)[on_table], self._pose)
        points = origin + directions * depth[on_table, None] + np.float32([0, 0, 0.001])
        shadow = np.zeros(u.shape, np.float32)
        light = np.broadcast_to(self._lights.key_direction.astype(np.float32), points.shape)
        shadow.ravel()[on_table] = mesh.caster.occluded(points, light)
        return cv2.GaussianBlur(shadow, (0, 0), 1.5)

    def _add_standing_objects(self) -> None:
        vertices, normals = self._scene.standing_mesh()
        mesh = MovingMesh.of(self._scene.standing, vertices, normals)
        window = _window(self._project(vertices), COARSE)
        if window is None:
            return
        left, top, right, bottom = window = self._with_shadow(window, vertices)
        inside = np.s_[top:bottom, left:right]
        shadow = _enlarge(self._table_shadow(mesh, window), COARSE)
        self._radiance[inside] *= 1 - shadow[..., None] * self._lights.shadow_share.astype(np.float32)
        layer = self._trace(mesh, window, self._step, None, self._depth)
        self._depth = self._depth.copy()
        _lay(self._radiance[inside], self._seg[inside], self._depth[inside], layer, self._step)

    def _with_shadow(self, window: Window, vertices: np.ndarray) -> Window:
        """The window grown to what shadow the vertices (V, 3) may throw on the table."""
        direction = self._lights.key_direction
        on_table = vertices - vertices[:, 2:] * (direction / direction[2])
        return _around(window, _window(self._project(on_table), COARSE), 4 * COARSE)

    def _project(self, points: np.ndarray) -> np.ndarray:
        camera = points @ self._table_to_camera[:, :3].T + self._table_to_camera[:, 3]
        return project_numpy(camera[camera[:, 2] > 0.05], self._K)


def surface_colour(
    mesh: MovingMesh, texels: np.ndarray, lights: Lights, hits: Hits, origin: np.ndarray, directions: np.ndarray
) -> np.ndarray:
    """Radiance (N, 3), linear RGB, of what N rays hit.

    Args:
        mesh: what was hit.
        texels: of its texture atlas (`Scene.texels`).
        lights: that shine on it.
        hits: (N,), every one a real hit.
        origin, directions: (3,) and (N, 3) of the rays, the mesh's frame.
    """
    values = interpolate(hits, mesh.surface.faces, mesh.attributes)
    normals = values[:, :3]
    texel = values[:, 4].astype(np.int32) * SKIN_SIZE + values[:, 3].astype(np.int32)
    albedo = texels[texel]
    back = np.flatnonzero(values[:, 5] > 0)
    share = values[back, 5:6]
    albedo[back] += share * (texels[texel[back] + SKIN_SIZE * SKIN_SIZE] - albedo[back])
    points = origin + directions * hits.distance[:, None] + normals * np.float32(_SHADOW_OFFSET)
    light = np.broadcast_to(lights.key_direction.astype(np.float32), points.shape)
    return shade(albedo, normals, directions, mesh.caster.occluded(points, light), values[:, 6], lights)


def _openness(caster: RayCaster, vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(V,) share of the cosine-weighted hemisphere above each vertex that nothing hides (ambient occlusion)."""
    cosines = normals @ _SKY.T
    vertex, ray = np.nonzero(cosines > 0.1)
    weights = cosines[vertex, ray]
    hidden = caster.occluded(vertices[vertex] + np.float32(_SHADOW_OFFSET) * normals[vertex], _SKY[ray])
    total = np.bincount(vertex, weights, len(vertices))
    return 1 - np.bincount(vertex, weights * hidden, len(vertices)) / np.maximum(total, 1e-6)


def _lay(radiance: np.ndarray, seg: np.ndarray, depth: np.ndarray | None, layer: Layer, step: int) -> None:
    """Paint a layer of one sample per ``step`` pixels over views of the picture, in place."""
    if step == 1:
        visible = layer.alpha > 0
        radiance[visible] = layer.colour[visible]
    else:
        alpha, colour = _enlarge(layer.alpha, step), _enlarge(layer.colour, step)
        radiance *= 1 - alpha[..., None]
        radiance += colour
        visible = _enlarge(layer.alpha, step, cv2.INTER_NEAREST) > 0
    label = layer.label if step == 1 else _enlarge(layer.label, step, cv2.INTER_NEAREST)
    seg[visible] = label[visible]
    if depth is not None:
        depth[visible] = (layer.depth if step == 1 else _enlarge(layer.depth, step, cv2.INTER_NEAREST))[visible]


def _enlarge(grid: np.ndarray, factor: int, how: int = cv2.INTER_LINEAR) -> np.ndarray:
    if factor == 1:
        return grid
    return cv2.resize(grid, (grid.shape[1] * factor, grid.shape[0] * factor), interpolation=how)


def _window(points: np.ndarray, multiple: int) -> Window | None:
    """Smallest window around 2D points, on multiples of ``multiple`` and inside the image; None if empty."""
    if len(points) == 0:
        return None
    low = np.floor(points.min(axis=0).clip(-1e4, 1e4) / multiple).astype(int) * multiple
    high = (np.floor(points.max(axis=0).clip(-1e4, 1e4) / multiple).astype(int) + 1) * multiple
    return _intersect((*low.tolist(), *high.tolist()), (0, 0, IMAGE_WIDTH, IMAGE_HEIGHT))


def _intersect(first: Window | None, second: Window | None) -> Window | None:
    if first is None or second is None:
        return None
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _around(first: Window, second: Window | None, margin: int) -> Window:
    """Smallest window around two, with a margin, inside the image."""
    second = second or first
    return (
        max(min(first[0], second[0]) - margin, 0), max(min(first[1], second[1]) - margin, 0),
        min(max(first[2], second[2]) + margin, IMAGE_WIDTH), min(max(first[3], second[3]) + margin, IMAGE_HEIGHT),
    )  # fmt: skip


def _within(inner: Window, outer: Window) -> tuple[slice, slice]:
    left, top = outer[:2]
    return np.s_[inner[1] - top : inner[3] - top, inner[0] - left : inner[2] - left]
