"""Pictures of a scene from one camera: rays only where something moves, fine ones only on the hand.

Per image: a coarse pass (one ray in `COARSE` x `COARSE` pixels) over everything that moves finds what
is hit, gives the soft shadows on the table and the parts far from the hand; a fine pass casts rays
inside the hand's box, and there only near blocks that the coarse pass hit. All else is the still
picture made once a sequence.
"""

from __future__ import annotations

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


class MovingMesh:
    """A frame's mesh, ready for rays; shared by all cameras.

    Args:
        surface: of the scene; vertices, normals: (V, 3) float32, table frame.
    """

    def __init__(self, surface: Surface, vertices: np.ndarray, normals: np.ndarray) -> None:
        self.surface, self.vertices, self.caster = surface, vertices, RayCaster(vertices, surface.faces)
        openness, folded = np.ones(len(vertices), np.float32), slice(surface.n_folded)
        openness[folded] = _openness(self.caster, vertices[folded], normals[folded])
        # (V, 7) float32: normal, texture, openness to the sky
        self._attributes = np.column_stack([normals, surface.texture, openness])

    def look(
        self,
        texels: np.ndarray,
        lights: Lights,
        K: np.ndarray,
        pixels: np.ndarray,
        camera_to_table: np.ndarray,
        nearer_than: np.ndarray | float = np.inf,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What a camera sees through pixels (N, 2) nearer than so many metres (N,).

        Args:
            texels: of the texture atlas (`Scene.texels`).

        Returns:
            numbers (M,) of the pixels that see something; its seg labels (M,), depth (M,), metres, and radiance (M, 3).
        """
        origin, directions = pixel_rays(K, pixels, camera_to_table[:3])
        hits = self.caster.cast(np.broadcast_to(origin, directions.shape), directions)
        seen = np.flatnonzero((hits.face >= 0) & (hits.distance < nearer_than))
        hits = Hits(hits.face[seen], hits.barycentric[seen], hits.distance[seen])
        colour = np.zeros((0, 3), np.float32)
        if len(seen):
            colour = self._colour(texels, lights, hits, origin, directions[seen])
        return seen, self.surface.labels[hits.face], hits.distance, colour

    def _colour(
        self, texels: np.ndarray, lights: Lights, hits: Hits, origin: np.ndarray, directions: np.ndarray
    ) -> np.ndarray:
        values = interpolate(hits, self.surface.faces, self._attributes)
        normals = values[:, :3]
        texel = values[:, 4].astype(np.int32) * SKIN_SIZE + values[:, 3].astype(np.int32)
        albedo = texels[texel]
        back = np.flatnonzero(values[:, 5] > 0)
        share = values[back, 5:6]
        albedo[back] += share * (texels[texel[back] + SKIN_SIZE * SKIN_SIZE] - albedo[back])
        points = origin + directions * hits.distance[:, None] + normals * np.float32(_SHADOW_OFFSET)
        light = np.broadcast_to(lights.key_direction.astype(np.float32), points.shape)
        return shade(albedo, normals, directions, self.caster.occluded(points, light), values[:, 6], lights)


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
        colour, is_table, self._table_depth = view_table(table, room, K, camera_to_table)
        self._radiance = colour * (1 + is_table[..., None] * (lights.on_table - 1)).astype(np.float32)
        self._seg = np.zeros((IMAGE_HEIGHT, IMAGE_WIDTH), np.uint8)
        self._depth = self._table_depth.copy()
        vertices, normals = scene.standing_mesh()
        standing, window = MovingMesh(scene.standing, vertices, normals), _window(self._project(vertices))
        if window is not None:
            window = self._with_shadow(window, vertices)
            inside = _slices(window)
            self._radiance[inside] *= self._table_light(standing, window)
            layer = self._trace(standing, window, step)
            _lay(self._radiance[inside], self._seg[inside], self._depth[inside], layer, step)
        self._still = sensor.develop(self._radiance, sensor.random_corner(generator))

    def render(self, mesh: MovingMesh, joints: np.ndarray | None, with_depth: bool = False) -> Picture:
        """The picture of one frame; ``joints`` (21, 3) table frame says where the hand is, None: no hand."""
        image, seg, depth = self._still.copy(), self._seg.copy(), self._depth.copy()
        moving = _window(self._project(mesh.vertices))
        if moving is not None:
            region = self._with_shadow(moving, mesh.vertices)
            inside = _slices(region)
            lit = self._radiance[inside] * self._table_light(mesh, region)
            radiance, coarse = lit.copy(), self._trace(mesh, region, COARSE)
            _lay(radiance, seg[inside], depth[inside], coarse, COARSE)
            fine = None
            if joints is not None:
                x, y, side = square_box(self._project(joints), HAND_BOX)
                fine = _intersect(_window(np.array([[x, y]]) + [[-side / 2], [side / 2]]), moving)
            if fine is not None:
                here, there = _slices(fine, region), _slices(fine)
                rows, columns = (slice(part.start // COARSE, part.stop // COARSE) for part in here)
                near = cv2.dilate(coarse.alpha, np.ones((3, 3)))[rows, columns] > 0
                layer = self._trace(mesh, fine, self._step, near)
                radiance[here], seg[there], depth[there] = lit[here], self._seg[there], self._depth[there]
                _lay(radiance[here], seg[there], depth[there], layer, self._step)
            image[inside] = self._sensor.develop(radiance, self._sensor.random_corner(self._generator))
        return Picture(image, seg, np.where(np.isfinite(depth), depth, 0) if with_depth else None)

    def _trace(self, mesh: MovingMesh, window: Window, step: int, blocks: np.ndarray | None = None) -> Layer:
        """Cast one ray per step x step pixels of the window, only in the named coarse blocks if there are any."""
        left, top, right, bottom = window
        columns, rows = block_centres(left, right, step), block_centres(top, bottom, step)
        shape = (len(rows), len(columns))
        if blocks is None:
            chosen = np.arange(shape[0] * shape[1])
        else:
            chosen = np.flatnonzero(_enlarge(blocks.astype(np.uint8), COARSE // step, cv2.INTER_NEAREST))
        row, column = np.divmod(chosen, shape[1])
        pixels = np.stack([columns[column], rows[row]], axis=1)
        still = self._depth[np.round(pixels[:, 1]).astype(int), np.round(pixels[:, 0]).astype(int)]
        seen, label, depth, colour = mesh.look(self._scene.texels, self._lights, self._K, pixels, self._pose, still)
        layer = Layer(
            np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.uint8),
            np.full(shape, np.inf, np.float32),
        )  # fmt: skip
        layer.colour.reshape(-1, 3)[chosen[seen]] = colour
        for grid, values in ((layer.alpha, 1), (layer.label, label), (layer.depth, depth)):
            grid.ravel()[chosen[seen]] = values
        return layer

    def _table_light(self, mesh: MovingMesh, region: Window) -> np.ndarray:
        """(h, w, 3) float32 0..1: the share of its light that the table has in the mesh's shadow."""
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
        shadow = _enlarge(cv2.GaussianBlur(shadow, (0, 0), 1.5), COARSE)
        return 1 - shadow[..., None] * self._lights.shadow_share.astype(np.float32)

    def _with_shadow(self, window: Window, vertices: np.ndarray) -> Window:
        """The window grown to what shadow the vertices (V, 3) may throw on the table."""
        direction = self._lights.key_direction
        on_table = vertices - vertices[:, 2:] * (direction / direction[2])
        both = np.array([window, _window(self._project(on_table)) or window])
        low, high = both[:, :2].min(axis=0) - 4 * COARSE, both[:, 2:].max(axis=0) + 4 * COARSE
        return (*np.maximum(low, 0).tolist(), *np.minimum(high, [IMAGE_WIDTH, IMAGE_HEIGHT]).tolist())

    def _project(self, points: np.ndarray) -> np.ndarray:
        camera = points @ self._table_to_camera[:, :3].T + self._table_to_camera[:, 3]
        return project_numpy(camera[camera[:, 2] > 0.05], self._K)


def _openness(caster: RayCaster, vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(V,) share of the cosine-weighted hemisphere above each vertex that nothing hides (ambient occlusion)."""
    cosines = normals @ _SKY.T
    vertex, ray = np.nonzero(cosines > 0.1)
    weights = cosines[vertex, ray]
    hidden = caster.occluded(vertices[vertex] + np.float32(_SHADOW_OFFSET) * normals[vertex], _SKY[ray])
    total = np.bincount(vertex, weights, len(vertices))
    return 1 - np.bincount(vertex, weights * hidden, len(vertices)) / np.maximum(total, 1e-6)


def _lay(radiance: np.ndarray, seg: np.ndarray, depth: np.ndarray, layer: Layer, step: int) -> None:
    """Paint a layer of one sample per ``step`` pixels over views of the picture, in place."""
    radiance *= 1 - _enlarge(layer.alpha, step)[..., None]
    radiance += _enlarge(layer.colour, step)
    alpha, label, far = (_enlarge(grid, step, cv2.INTER_NEAREST) for grid in (layer.alpha, layer.label, layer.depth))
    seg[alpha > 0], depth[alpha > 0] = label[alpha > 0], far[alpha > 0]


def _enlarge(grid: np.ndarray, factor: int, how: int = cv2.INTER_LINEAR) -> np.ndarray:
    if factor == 1:
        return grid
    return cv2.resize(grid, (grid.shape[1] * factor, grid.shape[0] * factor), interpolation=how)


def _window(points: np.ndarray) -> Window | None:
    """Smallest window around 2D points, on multiples of `COARSE` and inside the image; None if empty."""
    if len(points) == 0:
        return None
    low, high = (np.floor(end.clip(-1e4, 1e4) / COARSE).astype(int) for end in (points.min(axis=0), points.max(axis=0)))
    window = (*(low * COARSE).tolist(), *((high + 1) * COARSE).tolist())
    return _intersect(window, (0, 0, IMAGE_WIDTH, IMAGE_HEIGHT))


def _intersect(first: Window | None, second: Window) -> Window | None:
    if first is None:
        return None
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _slices(window: Window, outer: Window = (0, 0, 0, 0)) -> tuple[slice, slice]:
    """Rows and columns of a window in an array that shows ``outer``; by default in the whole image."""
    left, top = outer[:2]
    return np.s_[window[1] - top : window[3] - top, window[0] - left : window[2] - left]
