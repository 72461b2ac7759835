"""MakeHuman's right hand and forearm at rest on the first stand-in's skeleton: any body, one fine topology."""

from __future__ import annotations

import numpy as np

from template.fine import REGIONS
from template.stand_in.skeleton import WRIST, bone_frame, finger_joints, joint_positions, unit
from template.stand_in.skinning import smoothstep
from tools.stand_in import surface
from tools.stand_in.makehuman import MakeHuman
from tools.stand_in.rest_pose import ARM, RIG_FINGERS, RestPose, blend_weights
from utils.drawing.ray_casting import vertex_normals
from utils.joints import FINGERS

#: x of the forearm's open end, metres: 15 cm behind the wrist.
ARM_END = 0.25


class RestArm:
    """The arm of any body of MakeHuman, cut out, brought to rest, subdivided once.

    Attributes:
        mean: (V, 3) metres, of the mean of the average young woman and man.
        faces: (F, 3).
        uv, uv_faces: (T, 2) and (F, 3).
        blend: (V, 17) the rig's weights, of `blend_weights`.
        nail: (V,) in 0..1.
    """

    def __init__(self, human: MakeHuman) -> None:
        base, middle = human.base, human.base.vertices + human.bodies[:, 0, 1, 1].mean(axis=0)
        blend = blend_weights(human.weights(), len(middle))
        self._base = base.vertices
        self._cubes = {name: members for name, members in base.groups.items() if name.startswith("joint-r")}
        self._cut = cut = surface.cut_arm(
            base, blend, *(middle[self._cubes[f"joint-r-{name}"]].mean(axis=0) for name in ("hand", "elbow"))
        )
        self._blend, count = blend[cut.ids], len(cut.ids)
        nail = np.zeros(count)
        np.maximum.at(nail, cut.quads.ravel(), surface.sample(human.nail_mask(), cut.uv)[cut.uv_quads.ravel()])
        self._nails = surface.nails_by_finger(nail, self._blend)

        smooth, quads = surface.subdivide(cut.quads, count)
        linear, _ = surface.subdivide_linear(cut.quads, count)
        uv_linear, uv_quads = surface.subdivide_linear(cut.uv_quads, len(cut.uv))
        kept, stays, shift = surface.trim(smooth @ self._at_rest(middle), quads, ARM_END)
        self._smooth, self._shift = smooth[kept], shift[kept, None] * [1.0, 0.0, 0.0]
        self.mean = self._subdivided(middle)
        self.faces = np.searchsorted(kept, surface.triangles(quads[stays]))
        uv_kept, uv_faces = np.unique(surface.triangles(uv_quads[stays]), return_inverse=True)
        self.uv_faces = uv_faces.reshape(-1, 3)
        self.uv = surface.repack((uv_linear @ cut.uv)[uv_kept], self.uv_faces, self.mean, self.faces)
        self.blend, self.nail = linear[kept] @ self._blend, np.clip(linear[kept] @ nail, 0, 1)

    def __call__(self, offsets: np.ndarray) -> np.ndarray:
        """Vertices (V, 3), metres, of the body that lies at these offsets from the base mesh (all its vertices)."""
        return self._subdivided(self._base + offsets)

    def _subdivided(self, body: np.ndarray) -> np.ndarray:
        return self._smooth @ self._at_rest(body) + self._shift

    def _at_rest(self, body: np.ndarray) -> np.ndarray:
        joints = {name: body[members].mean(axis=0) for name, members in self._cubes.items()}
        arm, tips = body[self._cut.ids], {}
        for finger, number in RIG_FINGERS.items():  # the vertex furthest along the last bone
            along = unit(joints[f"joint-r-finger-{number}-4"] - joints[f"joint-r-finger-{number}-3"])
            mine = np.flatnonzero(self._blend[:, 1 + finger_joints(finger)[2]] > 0.9)
            tips[finger] = int(mine[np.argmax(arm[mine] @ along)])
        return RestPose(arm, joints, self._nails, tips)(arm, self._blend)


def label(vertices: np.ndarray, faces: np.ndarray, blend: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Region (V,) uint8 of the fine mesh, a number into `REGIONS`, and palmar share (V,) in 0..1: 1 where the
    skin looks to the palm.

    Args:
        vertices: (V, 3) at rest, metres.
        faces: (F, 3).
        blend: (V, 17) of `blend_weights`.
    """
    facing = vertex_normals(vertices, faces)
    dorsal = blend[:, :2].sum(axis=1)[:, None] * np.array([0.0, 1.0, 0.0])
    region = np.where(facing[:, 1] < 0, REGIONS.index("palm"), REGIONS.index("back"))
    for finger in FINGERS:
        joints = finger_joints(finger)
        for part, joint in enumerate(joints):
            dorsal += blend[:, 1 + joint, None] * bone_frame(finger, part)[1]
        first = joints[1] if finger == "thumb" else joints[0]
        share = blend[:, [1 + joint for joint in joints if joint >= first]].sum(axis=1)
        ahead = (vertices - joint_positions()[first]) @ bone_frame(finger, 1 if finger == "thumb" else 0)[0]
        region = np.where((share > 0.5) & (ahead > 0), REGIONS.index(finger), region)
    region = np.where((blend[:, ARM] > 0.5) | (vertices[:, 0] > WRIST[0]), REGIONS.index("forearm"), region)
    palmar = smoothstep(0.5 - 0.8 * (facing * unit(dorsal)).sum(axis=1))
    return region.astype(np.uint8), palmar
