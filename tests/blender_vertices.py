"""Run by an interpreter with bpy: ``blender_vertices.py FILE.glb OUT.npz SECONDS...``; posed vertices, glTF's axes."""

from __future__ import annotations

import sys

import bpy
import numpy as np


def main() -> None:
    """Open the file as a user does, go to each time and write what Blender shows then: (T,V,3) metres."""
    path, out, *seconds = sys.argv[1:]
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=path)
    (hand,) = [one for one in bpy.data.objects if one.type == "MESH" and len(one.data.vertices) > 100]
    scene = bpy.context.scene
    rate, shown = scene.render.fps / scene.render.fps_base, []
    for time in map(float, seconds):
        frame = int(time * rate)
        scene.frame_set(frame, subframe=time * rate - frame)
        posed = hand.evaluated_get(bpy.context.evaluated_depsgraph_get())
        mesh = posed.to_mesh()
        vertices = np.empty(3 * len(mesh.vertices))
        mesh.vertices.foreach_get("co", vertices)
        world = np.array(posed.matrix_world)
        vertices = vertices.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3]
        shown.append(np.stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]], axis=1))  # Blender's z is up
        posed.to_mesh_clear()
    (armature,) = [one for one in bpy.data.objects if one.type == "ARMATURE"]
    np.savez(out, vertices=np.stack(shown), bones=[bone.name for bone in armature.data.bones])


if __name__ == "__main__":
    main()
