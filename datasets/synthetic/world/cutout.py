"""One posed hand with arm, sleeve and held object, and what cameras see of it: cut-outs with alpha and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import scipy.sparse

from datasets.synthetic.scene.appearance import cloth_texture
from datasets.synthetic.world.lights import WorldLights, shade
from datasets.synthetic.world.mesh import HandSurface
from datasets.synthetic.world.skin import WIDTH, SheetMap, Skin
from utils.drawing.ray_casting import Hits, RayCaster, interpolate, pixel_rays, vertex_normals

SIZE = 160
"""Side of a cut-out, px."""

_TEXTURE = 128
_OFFSET = 0.0012  # metres off the surface before a shadow ray starts
_SKY_RAYS = 6
_WRIST_EDGE = 0.0165  # where the hand model ends behind the wrist joint, metres
_HIDDEN = 0.022  # a joint is hidden if something is this much nearer to the camera, metres


class Part(NamedTuple):
    """A mesh with a texture of its own (sleeve, object)."""

    vertices: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    uv: np.ndarray  # (V, 2) in [0, 1]
    texture: np.ndarray  # (S, S, 3) linear RGB


class Cutout(NamedTuple):
    """What one camera saw."""

    rgba: np.ndarray  # (S, S, 4) uint8: sRGB times alpha, alpha
    hand: np.ndarray  # (S, S) bool: the hand itself, up to the wrist
    hand_share: float  # of the covered pixels that are hand or arm
    visible: np.ndarray  # (21,) bool


@dataclass(frozen=True)
class View:
    """A pinhole camera in the hand's frame."""

    K: np.ndarray  # (3, 3) px of the cut-out
    rotation: np.ndarray  # (3, 3) hand -> camera
    translation: np.ndarray  # (3,)
    size: int = SIZE  # side of the picture, px

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the hand's frame in the camera's."""
        return points @ self.rotation.T + self.translation

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) of points (N, 3) of the hand's frame."""
        camera = self.to_camera(points) @ self.K.T
        return camera[:, :2] / camera[:, 2:]


class PosedScene:
    """Geometry and textures of one hand, ready for many cameras and lights.

    Args:
        surface: of the hand; vertices: (V, 3) float32 posed; joints: (21, 3).
        places: where its vertices lie on the sheets; skin: the person's.
        parts: sleeve and object; generator: of what ambient occlusion samples.
        smooth: (V, V) averages over neighbours (`neighbour_mean`).
    """

    def __init__(
        self,
        surface: HandSurface,
        vertices: np.ndarray,
        joints: np.ndarray,
        places: SheetMap,
        skin: Skin,
        parts: list[Part],
        generator: np.random.Generator,
        smooth: scipy.sparse.csr_matrix,
    ) -> None:
        self.joints, self.skin, self.parts = joints, skin, parts
        pieces = [vertices, *(part.vertices for part in parts)]
        starts = np.cumsum([0, *(len(piece) for piece in pieces)])
        self.vertices = np.concatenate(pieces).astype(np.float32)
        self.faces = np.vstack([surface.faces, *(p.faces + s for p, s in zip(parts, starts[1:], strict=False))])
        counts = [len(surface.faces), *(len(part.faces) for part in parts)]
        self.face_kind = np.repeat(np.arange(len(counts)), counts).astype(np.uint8)  # 0: the hand, then the parts
        self._face_is_hand = np.zeros(len(self.faces), bool)
        self._face_is_hand[: len(surface.faces)] = surface.rest[surface.faces, 0].mean(axis=1) < _WRIST_EDGE
        normals = np.concatenate(
            [vertex_normals(vertices, surface.faces), *(vertex_normals(part.vertices, part.faces) for part in parts)]
        ).astype(np.float32)
        self.caster = RayCaster(self.vertices, self.faces)
        place = np.zeros((len(self.vertices), 3), np.float32)
        place[: len(vertices), :2], place[: len(vertices), 2] = places.pixels, places.backness
        for part, start in zip(parts, starts[1:], strict=False):
            place[start : start + len(part.vertices), :2] = np.clip(part.uv, 0, 1) * (_TEXTURE - 1)
        openness = np.ones(len(self.vertices), np.float32)
        openness[: len(vertices)] = smooth @ self._openness(vertices, normals[: len(vertices)], generator)
        nails = np.zeros(len(self.vertices), np.float32)
        if surface.nails is not None:
            nails[: len(vertices)] = surface.nails
        self.attributes = np.column_stack([normals, place, openness, nails]).astype(np.float32)

    def _openness(self, vertices: np.ndarray, normals: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """(V,) share of the hemisphere above each vertex that nothing hides, from a few cosine-weighted rays."""
        random = generator.normal(size=(len(vertices), _SKY_RAYS, 3)).astype(np.float32)
        random /= np.linalg.norm(random, axis=2, keepdims=True)
        directions = (random + 1.02 * normals[:, None]).reshape(-1, 3)
        origins = np.repeat(vertices + np.float32(_OFFSET) * normals, _SKY_RAYS, axis=0)
        hidden = self.caster.occluded(origins, directions).reshape(-1, _SKY_RAYS)
        return 1 - hidden.mean(axis=1)

    def photograph(self, view: View, lights: WorldLights, exposure: float) -> Cutout:
        """Look at the scene; ``exposure`` is the sRGB brightness (0..1) of the mean of what is seen."""
        pixels = _covered(view, self.vertices)
        camera_to_hand = np.column_stack([view.rotation.T, -view.rotation.T @ view.translation])
        origin, directions = pixel_rays(view.K, pixels, camera_to_hand)
        hits = self.caster.cast(np.broadcast_to(origin, directions.shape), directions)
        seen = np.flatnonzero(hits.face >= 0)
        size, share = view.size, 0.0
        rgba, hand = np.zeros((size * size, 4), np.uint8), np.zeros(size * size, bool)
        if len(seen):
            found = Hits(hits.face[seen], hits.barycentric[seen], hits.distance[seen])
            radiance = self._colour(found, origin, directions[seen], lights)
            mean = radiance.mean(axis=0) @ np.float32([0.2126, 0.7152, 0.0722])
            radiance *= np.float32(exposure**2.2 / max(mean, 1e-6))
            index = pixels[seen, 1] * size + pixels[seen, 0]
            rgba[index, :3] = np.round(255 * np.clip(radiance, 0, 1) ** (1 / 2.2))
            rgba[index, 3] = 255
            hand[index] = self._face_is_hand[found.face]
            share = float((self.face_kind[found.face] == 0).mean())
        return Cutout(rgba.reshape(size, size, 4), hand.reshape(size, size), share, self.visible(view))

    def _colour(self, hits: Hits, origin: np.ndarray, directions: np.ndarray, lights: WorldLights) -> np.ndarray:
        values = interpolate(hits, self.faces, self.attributes)
        normals = values[:, :3] / np.maximum(np.linalg.norm(values[:, :3], axis=1, keepdims=True), 1e-6)
        points = origin + directions * hits.distance[:, None] + normals * np.float32(_OFFSET)
        shadowed = np.zeros((len(points), len(lights.lamps)), bool)
        for number, lamp in enumerate(lights.lamps):
            lit = np.flatnonzero(normals @ lamp > -0.3)
            shadowed[lit, number] = self.caster.occluded(points[lit], np.broadcast_to(lamp, (len(lit), 3)))
        albedo, gloss = np.empty((len(points), 3), np.float32), np.zeros(len(points), np.float32)
        kind = self.face_kind[hits.face]
        own = np.flatnonzero(kind == 0)
        texel = values[own, 4].astype(np.int32) * WIDTH + values[own, 3].astype(np.int32)
        back = values[own, 5]
        palm_sheet, back_sheet = self.skin.sheets.reshape(2, -1, 3)
        albedo[own] = palm_sheet[texel] + back[:, None] * (back_sheet[texel] - palm_sheet[texel])
        palm_gloss, back_gloss = self.skin.gloss.reshape(2, -1)
        gloss[own] = palm_gloss[texel] + back * (back_gloss[texel] - palm_gloss[texel])
        nail = np.clip(3 * values[own, 7] - 1, 0, 1)  # a nail ends within a triangle's width
        albedo[own] += nail[:, None] * (self.skin.nail - albedo[own])
        gloss[own] += nail * (self.skin.nail_gloss - gloss[own])
        for number, part in enumerate(self.parts):
            of_part = np.flatnonzero(kind == number + 1)
            texel = values[of_part, 4].astype(np.int32) * _TEXTURE + values[of_part, 3].astype(np.int32)
            albedo[of_part] = part.texture.reshape(-1, 3)[texel]
        unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        shine = np.where(kind == 0, np.float32(self.skin.shine), np.float32(0.04))
        return shade(albedo, gloss, normals, unit, values[:, 6], shadowed, lights, shine)

    def visible(self, view: View) -> np.ndarray:
        """(21,) bool: joints inside the picture that nothing far in front of them hides."""
        origin = -view.rotation.T @ view.translation
        directions = (self.joints - origin).astype(np.float32)
        hits = self.caster.cast(np.broadcast_to(origin.astype(np.float32), directions.shape), directions)
        gap = (1 - np.minimum(hits.distance, 1)) * np.linalg.norm(directions, axis=1)
        pixels = view.project(self.joints)
        inside = ((pixels > -0.5) & (pixels < view.size - 0.5)).all(axis=1)
        return (gap < _HIDDEN) & inside


def _covered(view: View, vertices: np.ndarray) -> np.ndarray:
    """Integer pixels (N, 2) of the smallest window that can show the vertices."""
    low, high = np.zeros(2, int), np.full(2, view.size)
    if (view.to_camera(vertices)[:, 2] > 0.03).all():
        seen = view.project(vertices)
        low = np.clip(np.floor(seen.min(axis=0)), 0, view.size - 1).astype(int)
        high = np.clip(np.ceil(seen.max(axis=0)) + 1, 1, view.size).astype(int)
    return np.stack(np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1])), axis=-1).reshape(-1, 2)


def neighbour_mean(faces: np.ndarray, count: int) -> scipy.sparse.csr_matrix:
    """(V, V) averages over a vertex and its neighbours, twice."""
    first, second = (faces[:, list(order)].ravel() for order in ((0, 1, 2), (1, 2, 0)))
    ones = np.ones(2 * len(first))
    near = scipy.sparse.csr_matrix((ones, (np.r_[first, second], np.r_[second, first])), shape=(count, count))
    near.data[:] = 1
    near = near + scipy.sparse.identity(count)
    near = scipy.sparse.diags(1 / np.asarray(near.sum(axis=1)).ravel()) @ near
    return (near @ near).tocsr()


def sleeve(surface: HandSurface, vertices: np.ndarray, generator: np.random.Generator) -> Part:
    """A sleeve that begins somewhere on the forearm, or hides the wrist."""
    start = generator.uniform(0.012, 0.22) if generator.random() < 0.75 else 0.012
    faces = surface.faces[(surface.rest[surface.faces, 0] > start).all(axis=1)]
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    rest = surface.rest[used]
    normals = vertex_normals(vertices, surface.faces)[used]
    angle = np.arctan2(rest[:, 1], rest[:, 2])
    folds, phase = generator.uniform(40, 160), generator.uniform(0, 2 * np.pi, 2)
    ripple = np.sin(folds * rest[:, 0] + phase[0] + 2 * np.sin(angle + phase[1]))
    outward = generator.uniform(0.003, 0.016) + generator.uniform(0.0003, 0.003) * ripple
    texture = cv2.resize(cloth_texture(generator, _TEXTURE), (_TEXTURE, _TEXTURE))
    uv = np.stack([(angle + np.pi) / (2 * np.pi), np.clip((rest[:, 0] - start) / 0.3, 0, 1)], 1)
    return Part((vertices[used] + normals * outward[:, None]).astype(np.float32), faces, uv, texture)
