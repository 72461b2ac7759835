"""What `template.stand_in.check` does not ask: the named measures of people, and the fine mesh."""

from __future__ import annotations

import numpy as np

from template.stand_in.check import Finding, boundary_edges, components, edge_counts, folded_edges
from template.stand_in.population import HAND_BREADTH_MM, HAND_LENGTH_MM
from template.stand_in.skeleton import MANO_FINGERS, bone_frame, finger_joints
from tools.stand_in.arm import ARM_END
from utils.drawing.ray_casting import RayCaster
from utils.joints import FINGERS, TIP_VERTICES

_MANOPTH = dict(zip(FINGERS, TIP_VERTICES["manopth"], strict=True))


def measures_mm(hand: dict[str, np.ndarray], fine: dict[str, np.ndarray], betas: np.ndarray) -> dict[str, np.ndarray]:
    """Measures (N,), mm, of flat hands with betas (N, 10).

    ``length`` is from the wrist to the middle fingertip; ``breadth`` across the knuckles of index and little finger
    between the outermost points of the fine mesh, without the thumb's flesh; each finger's from its first joint.
    """
    regressor, joints = hand["J_regressor"].astype(np.float64), hand["J_regressor"] @ hand["v_template"]
    index, little = joints[finger_joints("index")[0], 0], joints[finger_joints("little")[0], 0]
    thumb = fine["weights"][:, list(finger_joints("thumb"))].sum(axis=1)
    x = fine["vertices"][:, 0]
    slab = np.flatnonzero((thumb < 0.1) & (x > index - 0.004) & (x < little + 0.006))
    order = slab[np.argsort(fine["vertices"][slab, 2])]
    flank = fine["vertices"][order[-1]] - fine["vertices"][order[0]]
    vectors = {"breadth": flank + betas @ (fine["shapedirs"][order[-1]] - fine["shapedirs"][order[0]]).T}
    for name, joint, finger in [("length", 0, "middle"), *((f, finger_joints(f)[0], f) for f in MANO_FINGERS)]:
        row = -regressor[joint]
        row[_MANOPTH[finger]] += 1
        vectors[name] = row @ hand["v_template"] + betas @ np.einsum("v,vcb->bc", row, hand["shapedirs"])
    return {name: 1e3 * np.linalg.norm(vector, axis=1) for name, vector in vectors.items()}


def check_measures(hand: dict[str, np.ndarray], fine: dict[str, np.ndarray]) -> list[Finding]:
    """Means, spreads and correlation of 4000 hands with betas ~ N(0, 1) against the named survey."""
    found = measures_mm(hand, fine, np.random.default_rng(0).standard_normal((4000, 10)))
    findings = []
    for name, table in (("length", HAND_LENGTH_MM), ("breadth", HAND_BREADTH_MM)):
        means, spreads = np.array(list(table.values())).T
        mean, spread = means.mean(), np.sqrt((spreads**2).mean() + means.var())
        good = abs(found[name].mean() - mean) < 2.0 and abs(found[name].std() - spread) < 0.1 * spread
        told = f"{found[name].mean():.1f} +- {found[name].std():.1f} mm, the survey's {mean:.1f} +- {spread:.1f}"
        findings.append(Finding(f"hand {name} of adults", bool(good), told))
    together = np.corrcoef(found["length"], found["breadth"])[0, 1]
    # Both sexes together: the correlation within each sex (0.62) and the difference of their means.
    (women, ws), (men, ms) = HAND_LENGTH_MM.values()
    (b_women, bws), (b_men, bms) = HAND_BREADTH_MM.values()
    covariance = 0.62 * (ws * bws + ms * bms) / 2 + (men - women) * (b_men - b_women) / 4
    variance, b_variance = (
        (s**2 + t**2) / 2 + (n - m) ** 2 / 4 for m, s, n, t in ((women, ws, men, ms), (b_women, bws, b_men, bms))
    )
    expected = covariance / np.sqrt(variance * b_variance)
    told = f"{together:.2f}, expected {expected:.2f}"
    return [*findings, Finding("correlation of length and breadth", abs(together - expected) < 0.06, told)]


def check_fine(hand: dict[str, np.ndarray], fine: dict[str, np.ndarray]) -> list[Finding]:
    """The fine mesh by itself and against the coarse hand.

    Args:
        hand: the arrays of ``template/stand_in_2.npz``.
        fine: of `template.fine.load_fine_mesh`.
    """
    vertices, faces, weights = fine["vertices"], fine["faces"], fine["weights"]
    rim = vertices[[a for a, _ in boundary_edges(faces)], 0]
    folds = folded_edges(vertices, faces, 105.0)
    off, used = np.abs(weights.sum(axis=1) - 1).max(), int((weights > 0).sum(axis=1).max())
    one, two = (fine["uv"][fine["uv_faces"][:, k]] - fine["uv"][fine["uv_faces"][:, 0]] for k in (1, 2))
    flipped = int((one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0] <= 0).sum())
    on_nail = weights[fine["nail"] > 0.5] > 0.5
    nails = {finger: int(on_nail[:, finger_joints(finger)[2]].sum()) for finger in MANO_FINGERS}
    whole = components(faces, len(vertices)) == 1 and max(edge_counts(faces).values()) == 1
    flat, plane = bool(np.abs(rim - ARM_END).max() < 3e-3), f"x {rim.min():.4f} to {rim.max():.4f} m, {len(rim)} edges"
    in_square = flipped == 0 and fine["uv"].min() >= 0 and fine["uv"].max() <= 1
    return [
        Finding("size of the fine mesh", 3000 <= len(vertices) <= 10000, f"{len(vertices)} vertices"),
        Finding("fine mesh in one piece", whole, f"{len(faces)} faces"),
        Finding("forearm ends in a plane", flat, plane),
        Finding("no folded triangles in the fine mesh at rest (105 degrees)", folds == 0, f"{folds} edges"),
        Finding("fine skinning rows sum to 1", off < 1e-5 and used <= 4, f"off by {off:.1e}, {used} joints at most"),
        Finding("UVs within the unit square, none flipped", in_square, f"{flipped} flipped"),
        Finding("a nail on every finger", min(nails.values()) >= 20, str(nails)),
        _joints_inside(hand, fine),
        _on_the_surface(hand, fine),
    ]


def _joints_inside(hand: dict[str, np.ndarray], fine: dict[str, np.ndarray]) -> Finding:
    """Flesh on every side of each finger joint, for the mean hand and at 2.5 of each of the first five betas."""
    least, where = np.inf, ""
    for betas in np.concatenate([np.zeros((1, 10)), 2.5 * np.eye(10)[:5], -2.5 * np.eye(10)[:5]]):
        joints = hand["J_regressor"].astype(np.float64) @ (hand["v_template"] + hand["shapedirs"] @ betas)
        caster = RayCaster(fine["vertices"] + fine["shapedirs"] @ betas, fine["faces"])
        for finger in MANO_FINGERS:
            for part, joint in enumerate(finger_joints(finger)):
                _, dorsal, across = bone_frame(finger, part)
                outward = np.array([dorsal, -dorsal, across, -across])
                flesh = caster.cast(np.tile(joints[joint], (4, 1)), outward).distance
                if flesh.min() < least:
                    least, where = float(flesh.min()), f"{finger}, joint {part + 1}"
    return Finding("joints inside the flesh", 0.0035 < least < 1, f"at least {least * 1e3:.1f} mm ({where})")


def _on_the_surface(hand: dict[str, np.ndarray], fine: dict[str, np.ndarray]) -> Finding:
    """Distance of the coarse vertices from the fine surface for some people."""
    from scipy.spatial import cKDTree

    distances = []
    for betas in np.concatenate([np.zeros((1, 10)), np.random.default_rng(1).standard_normal((3, 10))]):
        corners = (fine["vertices"] + fine["shapedirs"] @ betas)[fine["faces"]]
        spread = np.array([[4, 1, 1], [1, 4, 1], [1, 1, 4], [2, 2, 2]]) / 6  # points of each face
        inner = np.concatenate([np.einsum("k,fkc->fc", share, corners) for share in spread])
        distances.append(cKDTree(inner).query(hand["v_template"] + hand["shapedirs"] @ betas)[0])
    median, far = np.median(distances) * 1e3, np.percentile(distances, 98) * 1e3
    told = f"median {median:.2f}, 98% within {far:.2f} mm (points of faces are up to 0.7 mm apart)"
    return Finding("coarse vertices on the fine surface", median < 0.7 and far < 2.5, told)
