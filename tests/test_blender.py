"""The animated GLB as Blender itself opens it (``bpy`` from PyPI); skipped where there is none.

In an environment of its own, with the Python that its wheel wants: ``python3.11 -m venv /tmp/bpy && /tmp/bpy/bin/pip
install bpy``, then ``BPY_PYTHON=/tmp/bpy/bin/python``.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_animation_files import AXES, HANDS, motion, posed

from utils.export.gltf_animation import MovingHand, write_hands_glb
from utils.export.rig import JOINT_NAMES

SCRIPT = Path(__file__).with_name("blender_vertices.py")


@pytest.fixture(scope="module")
def blender() -> str:
    """A Python that has bpy."""
    given = os.environ.get("BPY_PYTHON", sys.executable if importlib.util.find_spec("bpy") else None)
    if given is None:
        pytest.skip("needs Blender's module: pip install bpy in an environment of its own, its Python as BPY_PYTHON")
    return given


@pytest.mark.parametrize("correctives", [True, False])
@pytest.mark.parametrize("name", ["stand-in", "left"])
def test_blender_poses_every_vertex_as_we_do(name: str, correctives: bool, blender: str, tmp_path: Path) -> None:
    assets, (pose, betas, transl) = HANDS[name], motion(6, seed=3)
    times = np.array([0.0, 0.04, 0.1, 0.13, 0.2, 0.21])
    path, out = tmp_path / "hand.glb", tmp_path / "seen.npz"
    write_hands_glb(path, [MovingHand(assets, pose, betas, transl)], times, correctives=correctives)
    words = [blender, str(SCRIPT), str(path), str(out), *map(str, times)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(out) as seen:
        vertices, bones = seen["vertices"], set(seen["bones"].tolist())
    assert bones == set(JOINT_NAMES["mano"])
    whole = posed(assets, pose, betas, transl).vertices.numpy() * AXES
    alone = posed(replace(assets, posedirs=0 * assets.posedirs), pose, betas, transl).vertices.numpy() * AXES
    assert np.abs(vertices - (whole if correctives else alone)).max() < 1e-4  # 0.1 mm
    left = 1000 * np.linalg.norm(vertices - whole, axis=-1)
    print(f"{name}: {left.mean():.3f} mm in the mean, {np.percentile(left, 95):.3f} at the 95th percentile of vertices")
