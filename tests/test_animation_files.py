"""Animated GLB and BVH, read back by parsers of the test's own and posed by their formats' equations."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_assets import random_assets
from scipy.spatial.transform import Rotation, Slerp

from template import HandAssets, HandModel, HandOutput, load_hand_assets, mirror_assets
from utils.export.bvh import write_bvh
from utils.export.gltf_animation import MovingHand, write_hands_glb
from utils.export.rig import JOINT_NAMES, PARENTS
from utils.joints import MANO_TO_STANDARD, tip_vertices

ROOT = Path(__file__).parents[1]
AXES = np.array([1.0, -1.0, -1.0])  # of the OpenCV camera in glTF
HANDS = {
    "stand-in": load_hand_assets(ROOT / "template/stand_in.npz"),
    "left": load_hand_assets(ROOT / "template/stand_in.npz", "left"),
    "random": random_assets(2),
}


def motion(frames: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A pose of large turns (T,16,3,3), betas (10,) and transl (T,3)."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(scale=0.5, size=(frames, 16, 3))
    vectors[:, 0] = rng.normal(scale=2.0, size=(frames, 3))
    pose = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(frames, 16, 3, 3)
    return pose, rng.normal(size=10), rng.normal(scale=0.1, size=(frames, 3)) + [0, 0, 0.6]


def evenly(pose: np.ndarray) -> np.ndarray:
    """Times (T,), s, of its frames at 30 a second."""
    return np.arange(len(pose)) / 30


def posed(assets: HandAssets, pose: np.ndarray, betas: np.ndarray, transl: np.ndarray) -> HandOutput:
    tensors = torch.as_tensor(pose), torch.as_tensor(betas).expand(len(pose), 10), torch.as_tensor(transl)
    return HandModel(assets, dtype=torch.float64)(*tensors)


class Glb:
    """A binary glTF file, by the specification alone."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length, json_length, json_type = struct.unpack_from("<4sIII4s", data)
        assert (magic, version, length, json_type) == (b"glTF", 2, len(data), b"JSON")
        self.document: dict[str, Any] = json.loads(data[20 : 20 + json_length])
        size, kind = struct.unpack_from("<I4s", data, 20 + json_length)
        assert kind == b"BIN\0" and 28 + json_length + size == length
        self.binary = data[28 + json_length :]
        self.animation = self.document["animations"][0]

    def array(self, number: int) -> np.ndarray:
        accessor = self.document["accessors"][number]
        columns = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor["type"]]
        kind = {5126: "<f4", 5123: "<u2", 5121: "u1"}[accessor["componentType"]]
        start = self.document["bufferViews"][accessor["bufferView"]]["byteOffset"]
        values = np.frombuffer(self.binary, kind, columns * accessor["count"], start)
        if accessor["type"] == "MAT4":  # column-major
            return values.reshape(-1, 4, 4).swapaxes(1, 2).astype(float)
        return values.reshape(-1, columns).astype(int if kind != "<f4" else float)

    def key(self, node: int, what: str, frame: int) -> np.ndarray | None:
        for channel in self.animation["channels"]:
            if channel["target"] == {"node": node, "path": what}:
                sampler = self.animation["samplers"][channel["sampler"]]
                return self.array(sampler["output"]).reshape(len(self.array(sampler["input"])), -1)[frame]
        return None

    def vertices(self, frame: int, hand: int = 0) -> np.ndarray:
        """(V,3) of a mesh posed by section 3.7.3 of the specification: morph targets, then linear blend skinning."""
        nodes = self.document["nodes"]
        world: dict[int, np.ndarray] = {}

        def visit(node: int, parent: np.ndarray) -> None:
            local, turn = np.eye(4), self.key(node, "rotation", frame)
            moved = self.key(node, "translation", frame)
            local[:3, 3] = nodes[node].get("translation", np.zeros(3)) if moved is None else moved
            if turn is not None:
                local[:3, :3] = Rotation.from_quat(turn).as_matrix()
            world[node] = parent @ local
            for child in nodes[node].get("children", []):
                visit(child, world[node])

        for root in self.document["scenes"][0]["nodes"]:
            visit(root, np.eye(4))
        number = [index for index, node in enumerate(nodes) if "mesh" in node][hand]
        mesh, skin = self.document["meshes"][nodes[number]["mesh"]], self.document["skins"][nodes[number]["skin"]]
        (primitive,) = mesh["primitives"]
        points = self.array(primitive["attributes"]["POSITION"])
        weights = self.key(number, "weights", frame)
        for target, weight in zip(primitive.get("targets", []), () if weights is None else weights):
            points = points + weight * self.array(target["POSITION"])
        inverse = self.array(skin["inverseBindMatrices"])
        joints = np.stack([world[joint] @ inverse[place] for place, joint in enumerate(skin["joints"])])
        result = np.zeros_like(points)
        homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
        for name in (name for name in primitive["attributes"] if name.startswith("JOINTS_")):
            number_of, share = (
                self.array(primitive["attributes"][key]) for key in (name, name.replace("JOINTS", "WEIGHTS"))
            )
            for place in range(4):
                moved_points = np.einsum("vij,vj->vi", joints[number_of[:, place]], homogeneous)
                result += share[:, place, None] * moved_points[:, :3]
        return result


@pytest.mark.parametrize("correctives", [False, True])
@pytest.mark.parametrize("name", HANDS)
def test_the_skinned_mesh_of_the_file_is_the_hand_of_the_layer(name: str, correctives: bool, tmp_path: Path) -> None:
    assets, (pose, betas, transl) = HANDS[name], motion()
    path = tmp_path / "hand.glb"
    write_hands_glb(path, [MovingHand(assets, pose, betas, transl)], evenly(pose), correctives=correctives)
    glb = Glb(path)
    plain = assets if correctives else replace(assets, posedirs=np.zeros_like(assets.posedirs))
    expected = posed(plain, pose, betas, transl).vertices.numpy() * AXES
    for frame in range(len(pose)):
        assert np.abs(glb.vertices(frame) - expected[frame]).max() < 2e-6
    (primitive,) = glb.document["meshes"][0]["primitives"]
    assert np.array_equal(glb.array(primitive["indices"]).reshape(-1, 3), assets.faces)


def test_more_than_four_joints_a_vertex_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    flat = replace(HANDS["stand-in"], weights=rng.dirichlet(np.ones(16), size=778), posedirs=np.zeros((778, 3, 135)))
    write_hands_glb(tmp_path / "hand.glb", [MovingHand(flat, *motion())], evenly(motion()[0]))
    difference = Glb(tmp_path / "hand.glb").vertices(3) - posed(flat, *motion()).vertices[3].numpy() * AXES
    assert np.abs(difference).max() < 1e-5


def test_times_names_and_the_short_arc_between_keys(tmp_path: Path) -> None:
    pose, betas, transl = motion(12, seed=4)
    times = np.cumsum(np.random.default_rng(1).uniform(0.01, 0.1, 12))
    hand = MovingHand(HANDS["left"], pose, betas, transl)
    write_hands_glb(tmp_path / "hand.glb", [hand], times, joint_names="webxr")
    glb = Glb(tmp_path / "hand.glb")
    names = [node["name"] for node in glb.document["nodes"]]
    assert {"wrist", "thumb-metacarpal", "index-finger-phalanx-proximal", "pinky-finger-tip"} < set(names)
    assert len(set(names)) == 22 and glb.document["extras"]["hand_model"]["side"] == "left"
    for sampler, channel in zip(glb.animation["samplers"], glb.animation["channels"]):
        assert np.allclose(glb.array(sampler["input"])[:, 0], times, atol=1e-6)
        keys = glb.array(sampler["output"])
        if channel["target"]["path"] == "rotation":
            joint = names[: len(PARENTS)].index(names[channel["target"]["node"]])
            middle = (keys[1:] + keys[:-1]) / 2  # the direction of the arc's middle, if the arc is the short one
            turned = pose[:, joint] * np.outer(AXES, AXES)
            for frame in range(11):
                halfway = Slerp([0, 1], Rotation.from_matrix(turned[frame : frame + 2]))(0.5)
                assert (halfway * Rotation.from_quat(middle[frame]).inv()).magnitude() < 1e-5


VALIDATOR = """
const file = process.argv[1], report = require('gltf-validator').validateBytes(
  new Uint8Array(require('fs').readFileSync(file)), {maxIssues: 0});
report.then(result => console.log(JSON.stringify(result.issues)));
"""


@pytest.mark.parametrize("correctives", [False, True])
def test_the_khronos_validator_finds_nothing(correctives: bool, tmp_path: Path) -> None:
    node = shutil.which("node")
    found = node and subprocess.run([node, "-e", "require.resolve('gltf-validator')"], cwd=ROOT, capture_output=True)
    if not found or found.returncode:
        pytest.skip("needs Node.js and `npm install gltf-validator`; set NODE_PATH to its node_modules")
    for frames, assets in ((1, HANDS["stand-in"]), (5, mirror_assets(HANDS["stand-in"])), (3, HANDS["random"])):
        path = tmp_path / f"{frames}.glb"
        hand = MovingHand(assets, *motion(frames))
        write_hands_glb(path, [hand], evenly(hand.pose), correctives=correctives, joint_names="webxr")
        done = subprocess.run([node, "-e", VALIDATOR, str(path)], cwd=ROOT, capture_output=True, check=True)
        issues = json.loads(done.stdout)
        assert issues["numErrors"] == issues["numWarnings"] == 0, issues["messages"]


def read_bvh(path: Path) -> tuple[dict[str, np.ndarray], float]:
    """Positions (T,3) by joint name ("<parent> end" for end sites), file units, and the frame time."""
    text, numbers = path.read_text().split("MOTION")
    words = iter(text.split())
    count, time = int(numbers.split()[1]), float(numbers.split()[4])
    rows = np.array(numbers.split()[5:], float).reshape(count, -1)
    used, places = 0, {}
    stack: list[tuple[str, np.ndarray, np.ndarray]] = []
    name = ""
    for word in words:
        if word in ("ROOT", "JOINT", "End"):
            name = next(words) if word != "End" else f"{stack[-1][0]} end" if next(words) == "Site" else ""
        elif word == "OFFSET":
            offset = np.array([float(next(words)) for _ in range(3)])
            turn, place = (stack[-1][1:]) if stack else (np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 3)))
            places[name] = place + turn @ offset
            stack.append((name, turn, places[name]))
        elif word == "CHANNELS":
            local, shift = np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 3))
            for _ in range(int(next(words))):
                channel, values = next(words), rows[:, used]
                used += 1
                axis = "XYZ".index(channel[0])
                if channel.endswith("position"):
                    shift[:, axis] = values
                else:
                    local = local @ Rotation.from_rotvec(np.deg2rad(values)[:, None] * np.eye(3)[axis]).as_matrix()
            name, turn, place = stack.pop()
            places[name] = place + np.einsum("tij,tj->ti", turn, shift)
            stack.append((name, turn @ local, places[name]))
        elif word == "}":
            stack.pop()
    assert used == rows.shape[1] and not stack
    return places, time


@pytest.mark.parametrize("name", HANDS)
def test_the_skeleton_of_the_bvh_is_that_of_the_layer(name: str, tmp_path: Path) -> None:
    assets, (pose, betas, transl) = HANDS[name], motion(9, seed=1)
    pose[4, 2] = Rotation.from_euler("ZXY", [20, 90, 0], degrees=True).as_matrix()  # a pole of the angles
    write_bvh(tmp_path / "hand.bvh", assets, pose, betas, transl, fps=24)
    places, time = read_bvh(tmp_path / "hand.bvh")
    output = posed(assets, pose, betas, transl)
    joints = output.joints[:, np.argsort(MANO_TO_STANDARD)[:16]].numpy()
    for number, joint in enumerate(JOINT_NAMES["mano"][:16]):
        assert np.abs(places[joint] / 100 - joints[:, number] * AXES).max() < 1e-6
    rest = assets.v_template + assets.shapedirs @ betas
    for bone, joint, finger in (("index3", 3, 1), ("middle3", 6, 2)):  # tips as results have them, mirrored if left
        tip = rest[tip_vertices("manopth")[finger]] - (assets.J_regressor @ rest)[joint]
        expected = joints[:, joint] + output.transforms[:, joint, :, :3].numpy() @ tip
        assert np.abs(places[f"{bone} end"] / 100 - expected * AXES).max() < 1e-6
    assert len(places) == 21 and time == pytest.approx(1 / 24, abs=1e-8)


def test_motions_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    pose, betas, transl = motion(3)
    flipped, lost = pose.copy(), transl.copy()
    flipped[1, 5] *= -1
    lost[2, 0] = np.nan
    cases: list[tuple[str, tuple[np.ndarray, ...], dict[str, Any]]] = [
        ("frame 1, joint 5", (flipped, betas, transl), {}),
        ("frame 2 has numbers that are not finite", (pose, betas, lost), {}),
        ("at least one frame", (pose[:0], betas, transl[:0]), {}),
        ("must be 3 finite seconds", (pose, betas, transl), {"times": np.array([0, 0.1])}),
        ("frame 2 is at 0.1 s", (pose, betas, transl), {"times": np.array([0, 0.2, 0.1])}),
        ("choose one of", (pose, betas, transl), {"joint_names": "unity"}),
    ]
    for words, arguments, options in cases:
        with pytest.raises(ValueError, match=words):
            hand = MovingHand(HANDS["stand-in"], *arguments)
            write_hands_glb(tmp_path / "hand.glb", [hand], **{"times": evenly(hand.pose), **options})
    with pytest.raises(ValueError, match="fps is 0"):
        write_bvh(tmp_path / "hand.bvh", HANDS["stand-in"], pose, betas, transl, fps=0)
    assert not os.listdir(tmp_path)
