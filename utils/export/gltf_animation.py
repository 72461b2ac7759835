"""Hands in motion as one binary glTF 2.0 file: skinned meshes, their bones and an animation.

Written by hand because trimesh writes neither skins nor animations. Section numbers are the Khronos specification's
(glTF 2.0.1). Bones have the wrist's axes at rest and MANO's rotations, so that a joint's keys are its pose.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from utils.export.rig import PARENTS, Rig, SkinnedHand, make_rig
from utils.files import atomic_path
from utils.mesh_io import CAMERA_TO_GLTF

#: Component types (3.6.2.2) and buffer view targets (5.11.5) by their numbers.
_COMPONENT = {"f4": 5126, "u2": 5123, "u1": 5121}
_VERTICES, _INDICES = 34962, 34963
_TYPE = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
#: Place in R - I (row-major), and factor, of the nine rows and columns' morph targets. Blender's importer (5.0) limits
#: weights to 0..1, and so do game engines: the diagonal is 0 to -2, what lies beside it gets a target for either sign.
_MORPHS = [(place, sign) for place in range(9) for sign in ((-2.0,) if place % 4 == 0 else (1.0, -1.0))]
_SKIN_COLOUR = [0.80, 0.60, 0.50, 1.0]


class MovingHand(NamedTuple):
    """A person's moving hand, in the OpenCV camera frame."""

    assets: SkinnedHand  # of the hand's side
    pose: np.ndarray  # (T,16,3,3) rotations relative to the parent, MANO's order
    betas: np.ndarray  # (10,), one shape for all frames
    transl: np.ndarray  # (T,3) metres; the wrist is at J0(betas) + transl
    name: str = ""  # of its mesh and before its bones' names


def write_hands_glb(
    path: str | os.PathLike,
    hands: Sequence[MovingHand],
    times: np.ndarray,
    *,
    correctives: bool = False,
    joint_names: str = "mano",
) -> None:
    """Write hands that move in one scene and one animation, atomically: each a skinned mesh with bones of its own.

    The file's axes are x, -y, -z of the OpenCV camera (see `utils.export.rig`), metres. At every key the wrist, the
    rotations and (with ``correctives``) the pose blend shapes are exactly ours; between keys rotations are
    interpolated on the shortest arc, positions and blend shapes linearly.

    Args:
        path: ends in ``.glb``.
        times: (T,) increasing seconds of every hand's frames.
        correctives: also write MANO's pose blend shapes, as 225 morph targets, see `_MORPHS`. Without them linear
            blending alone is left, some millimetres off at bent joints.
        joint_names: "mano" or "webxr".

    Raises:
        ValueError: another suffix, times that are not (T,), below 0 or not increasing; see `make_rig`.
    """
    path = Path(path)
    if path.suffix != ".glb":
        raise ValueError(f"{path}: suffix {path.suffix!r} must be .glb")
    rigs = [make_rig(path, hand.assets, hand.pose, hand.betas, hand.transl, joint_names) for hand in hands]
    seconds = np.asarray(times, np.float64)
    if seconds.shape != (len(rigs[0].root),) or not np.isfinite(seconds).all():
        raise ValueError(f"{path}: times {seconds.shape} must be {len(rigs[0].root)} finite seconds, one a frame")
    single = seconds.astype(np.float32)  # what the file will hold
    if single[0] < 0 or (np.diff(single) <= 0).any():
        number = int(np.argmax(np.diff(single, prepend=np.float32(-1e-9)) <= 0))
        raise ValueError(
            f"{path}: times must start at 0 or later and increase, but frame {number} is at {seconds[number]:g} s; "
            "sort the frames and leave doubles out"
        )
    writer = _Buffers()
    nodes: list[dict[str, Any]] = []
    roots, meshes, skins, facts = [], [], [], []
    motion: dict[str, list[dict[str, Any]]] = {"samplers": [], "channels": []}
    clock = writer.add(seconds, "f4", bounds=True)
    for number, (hand, rig) in enumerate(zip(hands, rigs, strict=True)):
        first = len(nodes)
        meshes.append(_mesh(writer, rig, hand.assets, correctives))
        # A skinned mesh stands at the scene's root without a transform: its joints alone place it (3.7.3.3).
        mesh = {"name": hand.name or "hand", "mesh": number, "skin": number}
        for joint, (name, offset) in enumerate(zip(rig.names, rig.offsets)):
            node = {"name": f"{hand.name}_{name}" if hand.name else name, "translation": offset.tolist()}
            if children := [first + child for child, parent in enumerate(PARENTS) if parent == joint]:
                node["children"] = children
            nodes.append(node)
        nodes.append(mesh)
        roots += [first, first + len(PARENTS)]
        inverse = np.tile(np.eye(4), (len(PARENTS), 1, 1))
        inverse[:, :3, 3] = -rig.joints
        joints = list(range(first, first + len(PARENTS)))
        skins.append({"joints": joints, "skeleton": first, "inverseBindMatrices": writer.add(inverse, "f4")})
        _animate(writer, rig, motion, clock, first, correctives)
        model = {"name": hand.assets.name, "side": hand.assets.side, "hash": hand.assets.hash}
        facts.append({"hand_model": model, "betas": np.asarray(hand.betas, np.float64).tolist()})
    document = {
        "asset": {"version": "2.0", "generator": "handid"},
        "scene": 0,
        "scenes": [{"nodes": roots}],
        "nodes": nodes,
        "meshes": meshes,
        "materials": [{
            "name": "skin",
            "pbrMetallicRoughness": {"baseColorFactor": _SKIN_COLOUR, "metallicFactor": 0.0, "roughnessFactor": 0.7},
        }],
        "skins": skins,
        "animations": [{"name": "motion", **motion}],
        "extras": facts[0] if len(facts) == 1 else {"hands": facts},
    }  # fmt: skip
    with atomic_path(path) as temporary:
        temporary.write_bytes(writer.glb(document))


class _Buffers:
    """The binary chunk and its accessors: every array gets a buffer view of its own, at a multiple of four bytes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: np.ndarray, kind: str, target: int | None = None, bounds: bool = False) -> int:
        """Number of the accessor of an array (N,...) of ``kind`` "f4", "u2" or "u1"; matrices column by column."""
        array = array.astype(f"<{kind}")
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes}
        accessor: dict[str, Any] = {
            "bufferView": len(self.views),
            "componentType": _COMPONENT[kind],
            "count": len(array),
            "type": _TYPE[array.shape[1:]],
        }
        if target is not None:
            view["target"] = target
        if bounds:
            accessor |= {"min": np.atleast_1d(array.min(0)).tolist(), "max": np.atleast_1d(array.max(0)).tolist()}
        self.data += array.swapaxes(-1, -2).tobytes() if array.ndim == 3 else array.tobytes()
        self.data += bytes(-len(self.data) % 4)
        self.views.append(view)
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def glb(self, document: dict[str, Any]) -> bytes:
        """The whole file (4.4): a header, the JSON chunk and the binary chunk."""
        document |= {
            "buffers": [{"byteLength": len(self.data)}],
            "bufferViews": self.views,
            "accessors": self.accessors,
        }
        text = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.data), b"BIN\0") + self.data
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _mesh(writer: _Buffers, rig: Rig, assets: SkinnedHand, correctives: bool) -> dict[str, Any]:
    normals = trimesh.Trimesh(rig.vertices, assets.faces, process=False).vertex_normals
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(length > 0.5, normals, [0.0, 0.0, 1.0])  # a vertex without a face still needs one
    attributes = {
        "POSITION": writer.add(rig.vertices, "f4", _VERTICES, bounds=True),
        "NORMAL": writer.add(normals, "f4", _VERTICES),
    }
    for number, (joints, weights) in enumerate(_influences(assets.weights)):
        attributes[f"JOINTS_{number}"] = writer.add(joints, "u1", _VERTICES)
        attributes[f"WEIGHTS_{number}"] = writer.add(weights, "f4", _VERTICES)
    primitive: dict[str, Any] = {
        "attributes": attributes,
        "indices": writer.add(assets.faces.ravel(), "u2", _INDICES),
        "material": 0,
    }
    mesh: dict[str, Any] = {"name": f"{assets.side}_hand", "primitives": [primitive]}
    if correctives:
        # The weights are of R - I in the camera's frame: only the directions change axes.
        directions = np.moveaxis(assets.posedirs * CAMERA_TO_GLTF[:, None], -1, 0).reshape(15, 9, -1, 3)
        targets = [factor * joint[place] for joint in directions for place, factor in _MORPHS]
        primitive["targets"] = [{"POSITION": writer.add(target, "f4", _VERTICES, bounds=True)} for target in targets]
        mesh["weights"] = [0.0] * len(targets)
        signs = {-2.0: "", 1.0: "+", -1.0: "-"}
        parts = [f"r{place // 3}{place % 3}{signs[factor]}" for place, factor in _MORPHS]
        names = [f"{name}_{part}" for name in rig.names[1:16] for part in parts]
        mesh["extras"] = {"targetNames": names}  # where Blender, three.js and Unity look for them
    return mesh


def _influences(weights: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sets of four joints (778,4) and their weights (778,4), the largest first; unused places are 0 (3.7.3.3)."""
    used = int((weights > 0).sum(axis=1).max())
    order = np.argsort(-weights, axis=1, kind="stable")[:, : 4 * -(-used // 4)]
    values = np.take_along_axis(weights, order, axis=1)
    values = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
    order = np.where(values > 0, order, 0)
    return [(order[:, start : start + 4], values[:, start : start + 4]) for start in range(0, order.shape[1], 4)]


def _animate(
    writer: _Buffers, rig: Rig, motion: dict[str, list[dict[str, Any]]], clock: int, first: int, correctives: bool
) -> None:
    """Add a hand's channels, of nodes from ``first`` on, to ``motion``; ``clock``: accessor of the times."""

    def channel(node: int, what: str, values: np.ndarray) -> None:
        motion["channels"].append({"sampler": len(motion["samplers"]), "target": {"node": first + node, "path": what}})
        motion["samplers"].append({"input": clock, "output": writer.add(values, "f4"), "interpolation": "LINEAR"})

    channel(0, "translation", rig.root)
    quaternions = Rotation.from_matrix(rig.rotations.reshape(-1, 3, 3)).as_quat().reshape(len(rig.root), 16, 4)
    # q and -q are one rotation; neighbours of one sign also please programs that interpolate the numbers.
    dots = np.einsum("tjq,tjq->tj", quaternions[1:], quaternions[:-1])
    quaternions[1:] *= np.cumprod(np.where(dots < 0, -1.0, 1.0), axis=0)[..., None]
    for joint in range(16):
        channel(joint, "rotation", quaternions[:, joint])
    if correctives:
        camera = rig.rotations[:, 1:] * np.outer(CAMERA_TO_GLTF, CAMERA_TO_GLTF)
        places, factors = np.array([place for place, _ in _MORPHS]), np.array([factor for _, factor in _MORPHS])
        weights = (camera - np.eye(3)).reshape(len(camera), 15, 9)[..., places] / factors
        channel(len(PARENTS), "weights", weights.clip(0, 1).reshape(-1))
