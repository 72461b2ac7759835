"""One sequence's things to look at, merged: hand, forearm and the grasped object in one mesh, one atlas.

The moving mesh is rebuilt for each frame (eight cameras share it); the objects that only stand about
form a second mesh that never changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from datasets.synthetic.scene.appearance import SKIN_SIZE, SkinMap, cloth_texture, object_texture
from datasets.synthetic.scene.motion import Motion
from datasets.synthetic.scene.objects import TEXTURE_SIZE
from template.stand_in.remesh import boundary_loop
from utils.drawing.ray_casting import face_normals

SEG_HAND = 255
_RINGS, _CLOTH, _ARM_LENGTH = 9, 128, 0.55  # the upper arm's direction is the forearm's: it is out of view
_SHOULDER = np.array([0.22, -0.85, 0.36])  # of a right hand's owner, table frame, metres


@dataclass(frozen=True)
class Surface:
    """A mesh without its positions: what does not change from frame to frame."""

    faces: np.ndarray  # (F, 3) int32
    texture: np.ndarray  # (V, 3) float32: atlas x, atlas y, backness (0 except on skin)
    labels: np.ndarray  # (F,) uint8 seg value of each face
    n_folded: int  # the first so many vertices (hand, forearm) shade each other


class Scene:
    """Surfaces and textures of one sequence. Positions are in the table frame, metres, float32."""

    def __init__(
        self,
        motion: Motion,
        hand_faces: np.ndarray,
        skin_map: SkinMap,
        skin: tuple[np.ndarray, np.ndarray],
        generator: np.random.Generator,
    ) -> None:
        self.motion = motion
        self._loop = wrist_loop(hand_faces)
        self._normal_sums = _incidence(hand_faces, len(motion.vertices[0]))
        self._hand_faces = hand_faces
        self._sheets: list[np.ndarray] = []  # square textures packed below each other
        hand_uv = self._pack(skin[0], skin_map.uv)
        self._pack(skin[1], skin_map.uv)
        hand_texture = np.column_stack([hand_uv, skin_map.backness])

        self._sleeve_start = float(generator.uniform(0.0, 0.16))  # bare forearm before it, metres
        self._looseness = float(generator.uniform(1.04, 1.3))
        self._folds = generator.uniform(0, 2 * np.pi, 3)
        arm_texture, arm_faces = self._arm_surface(hand_texture, cloth_texture(generator, _CLOTH))

        self._meshes = [item.mesh() for item in motion.objects]
        textures = [object_texture(item.ycb_id, item.colours, TEXTURE_SIZE) for item in motion.objects]
        object_uv = [self._pack(texture, mesh.uv) for texture, mesh in zip(textures, self._meshes, strict=True)]
        held, *standing = (
            (mesh.faces, _flat_texture(uv), item.ycb_id)
            for mesh, uv, item in zip(self._meshes, object_uv, motion.objects, strict=True)
        )
        hand = [(hand_faces, hand_texture, SEG_HAND), (arm_faces, arm_texture, 0)]
        self.with_hand, self.without_hand = _merge([*hand, held], 2), _merge([held])
        self.standing = _merge(standing)
        # (rows * SKIN_SIZE, 3) float32 linear RGB; texel of pixel (x, y) is row y * SKIN_SIZE + x.
        self.texels = np.vstack(self._sheets).reshape(-1, 3)

    def frame(self, index: int) -> tuple[Surface, np.ndarray, np.ndarray]:
        """The moving surface of a frame with its vertices and unit normals, (V, 3) float32 each."""
        vertices, normals = _place(self._meshes[0], self.motion.object_poses[index, 0])
        if not self.motion.present[index]:
            return self.without_hand, vertices.astype(np.float32), normals.astype(np.float32)
        hand = self.motion.vertices[index]
        hand_normals = _unit(self._normal_sums @ face_normals(hand, self._hand_faces))
        arm, arm_normals = self._arm(hand, self.motion.joints[index])
        return (
            self.with_hand,
            np.concatenate([hand, arm, vertices]).astype(np.float32),
            np.concatenate([hand_normals, arm_normals, normals]).astype(np.float32),
        )

    def standing_mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Vertices and normals (V, 3) float32 of the objects that stand about."""
        poses = self.motion.object_poses[0, 1:]
        placed = [_place(mesh, pose) for mesh, pose in zip(self._meshes[1:], poses, strict=True)]
        vertices, normals = (np.concatenate(part).astype(np.float32) for part in zip(*placed, strict=True))
        return vertices, normals

    def _pack(self, texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
        """Append a square texture to the atlas; the atlas pixel coordinates (V, 2) of its ``uv`` (V, 2) in [0, 1]."""
        size, above = len(texture), sum(len(sheet) for sheet in self._sheets)
        sheet = np.zeros((size, SKIN_SIZE, 3), np.float32)
        sheet[:, :size] = texture
        self._sheets.append(sheet)
        return np.clip(uv, 0, 1) * (size - 1) + [0, above]

    def _arm_surface(self, hand_texture: np.ndarray, cloth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Texture coordinates and faces of a bare tube of rings from the wrist loop and a sleeve over it."""
        count = len(self._loop)
        skin = np.tile(hand_texture[self._loop], (_RINGS, 1))
        around, along = np.meshgrid(np.linspace(0, 1, count), np.linspace(0, 1, _RINGS))
        sleeve = _flat_texture(self._pack(cloth, np.column_stack([around.ravel(), along.ravel()])))
        ring, place = np.meshgrid(np.arange(_RINGS - 1), np.arange(count), indexing="ij")
        a = (ring * count + place).ravel()
        b = (ring * count + (place + 1) % count).ravel()
        tube = np.concatenate([np.stack([a, b, b + count], 1), np.stack([a, b + count, a + count], 1)])
        self._tube_faces = tube
        self._tube_sums = _incidence(tube, _RINGS * count)
        return np.vstack([skin, sleeve]), np.vstack([tube, tube + _RINGS * count])

    def _arm(self, hand: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        loop = hand[self._loop]
        centre = loop.mean(axis=0)
        side = np.array([-1.0 if self.motion.side == "left" else 1.0, 1, 1])
        backwards = _unit(joints[0] - joints[9])
        to_shoulder = _unit(_SHOULDER * side - centre)
        # The forearm leaves along the hand and bends towards the shoulder as far as wrists do.
        axis = _unit(0.9 * backwards + 0.8 * to_shoulder)
        spokes = loop - centre
        along = np.linspace(0.0, _ARM_LENGTH, _RINGS)
        turn = np.minimum(along / 0.05, 1.0)[:, None, None]
        flat = spokes - np.outer(spokes @ axis, axis)
        growth = _thickness(along)[:, None, None]
        bare = centre + along[:, None, None] * axis + ((1 - turn) * spokes + turn * flat) * growth
        start = np.linspace(self._sleeve_start, _ARM_LENGTH, _RINGS)
        ripple = 1 + 0.05 * np.sin(start[:, None] * 90 + self._folds[0] + np.linspace(0, 4 * np.pi, len(loop)))
        width = _thickness(start) * self._looseness
        sleeve = centre + start[:, None, None] * axis + flat * (width[:, None] * ripple)[..., None]
        vertices = np.concatenate([bare.reshape(-1, 3), sleeve.reshape(-1, 3)])
        normals = [
            _unit(self._tube_sums @ face_normals(part.reshape(-1, 3), self._tube_faces)) for part in (bare, sleeve)
        ]
        # The loop's direction around the wrist decides the tube's; the spokes tell which way is out.
        outward = np.sign(np.sum(normals[0] * np.tile(flat, (_RINGS, 1))))
        return vertices, outward * np.concatenate(normals)


def wrist_loop(faces: np.ndarray) -> np.ndarray:
    """Vertices of the hand's one open edge loop, from the least one towards its lesser neighbour."""
    loop = np.array(boundary_loop(faces))
    loop = np.roll(loop, -int(loop.argmin()))
    return loop if loop[1] < loop[-1] else np.roll(loop[::-1], 1)


def _thickness(along: np.ndarray) -> np.ndarray:
    """A forearm's width over the wrist's, ``along`` metres from the wrist."""
    return 1 + 0.5 * np.minimum(along / 0.22, 1)


def _merge(parts: list[tuple[np.ndarray, np.ndarray, int]], n_folded_parts: int = 0) -> Surface:
    starts = np.cumsum([0] + [len(texture) for _, texture, _ in parts[:-1]])
    return Surface(
        np.vstack([faces + start for (faces, _, _), start in zip(parts, starts, strict=True)]).astype(np.int32),
        np.vstack([texture for _, texture, _ in parts]).astype(np.float32),
        np.concatenate([np.full(len(faces), label, np.uint8) for faces, _, label in parts]),
        sum(len(texture) for _, texture, _ in parts[:n_folded_parts]),
    )


def _flat_texture(uv: np.ndarray) -> np.ndarray:
    return np.column_stack([uv, np.zeros(len(uv))])


def _place(mesh: object, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return mesh.vertices @ pose[:3, :3].T + pose[:3, 3], mesh.normals @ pose[:3, :3].T


def _incidence(faces: np.ndarray, n_vertices: int) -> scipy.sparse.csr_matrix:
    """(V, F) matrix that sums face values into vertices."""
    columns = np.repeat(np.arange(len(faces)), 3)
    return scipy.sparse.csr_matrix((np.ones(faces.size), (faces.ravel(), columns)), shape=(n_vertices, len(faces)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
