"""Pictures and mesh files: things land where the camera says, and files are whole and readable."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from mesh_files import read_mesh

from utils.camera import project_numpy, square_box, transform_points
from utils.drawing import overlay
from utils.drawing.figures import CROP_PIXELS, HandView, ShapeView, demo_figure, identity_figure
from utils.joints import BONES, FINGERS
from utils.mesh_io import write_mesh

K = np.array([[600.0, 0.0, 160.0], [0.0, 610.0, 118.0], [0.0, 0.0, 1.0]])
PLACE = np.array([0.03, -0.02, 0.6])


def ball() -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.05)
    return np.asarray(mesh.vertices) + PLACE, np.asarray(mesh.faces)


def fan() -> np.ndarray:
    """21 joints of a flat hand about PLACE, metres."""
    joints = np.zeros((21, 3))
    for finger, angle in enumerate((-0.9, -0.3, 0.0, 0.3, 0.6)):
        for part, reach in enumerate((0.05, 0.065, 0.08, 0.09)):
            joints[1 + 4 * finger + part] = [reach * np.sin(angle), -reach * np.cos(angle), 0.0]
    return joints + PLACE + [0, 0.04, 0]


def grey(height: int = 240, width: int = 320) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def test_bones_have_their_fingers_colour_and_the_argument_is_untouched() -> None:
    image, points = grey(400, 400), np.zeros((21, 2))
    points[0] = [200, 380]
    for finger in range(5):
        for part in range(4):
            points[1 + 4 * finger + part] = [60 + 70 * finger, 280 - 60 * part]
    drawn = overlay.draw_skeleton(image, points)
    assert (image == 128).all() and drawn.shape == image.shape and drawn.dtype == np.uint8
    for parent, child in BONES:
        u, v = np.round((points[parent] + points[child]) / 2).astype(int)
        finger = FINGERS[(child - 1) // 4]
        assert tuple(drawn[v, u]) == overlay.FINGER_COLOURS[finger], (parent, child)


def test_joints_without_confidence_or_position_are_left_out() -> None:
    points = np.random.default_rng(0).uniform(50, 350, (21, 2))
    assert (overlay.draw_skeleton(grey(), points, np.zeros(21), minimum_confidence=0.1) == 128).all()
    points[:] = np.nan
    assert (overlay.draw_skeleton(grey(), points) == 128).all()
    far = np.full((21, 2), 1e9)  # must not overflow OpenCV's fixed point into the image
    assert (overlay.draw_skeleton(grey(), far) == 128).all()


def test_skeleton_lands_on_the_subpixel_position() -> None:
    points = np.full((21, 2), np.nan)
    points[8] = [101.5, 60.25]
    changed = (overlay.draw_skeleton(np.full((200, 200, 3), 255, np.uint8), points, thickness=6) != 255).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert abs(columns.mean() - 101.5) < 0.2 and abs(rows.mean() - 60.25) < 0.2


def test_mesh_covers_exactly_where_its_vertices_project() -> None:
    vertices, faces = ball()
    drawn = overlay.overlay_mesh(grey(), vertices, faces, K)
    covered = (drawn != 128).any(axis=2)
    pixels = project_numpy(vertices, K)
    outline = cv2.convexHull(pixels.astype(np.float32)).reshape(-1, 2)
    v, u = np.mgrid[:240, :320]
    distance = np.array(
        [cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in zip(u.ravel(), v.ravel())]
    ).reshape(240, 320)
    assert covered[distance > 1.0].all() and not covered[distance < -1.0].any()
    assert (overlay.mesh_silhouette(vertices, faces, K, 320, 240) == (distance > 0))[np.abs(distance) > 0.01].all()
    _, coverage = overlay.render_mesh(vertices, faces, K, 320, 240, supersample=4)
    assert coverage.sum() == pytest.approx(cv2.contourArea(outline), rel=0.01)
    moments = cv2.moments(outline)
    assert (coverage * u).sum() / coverage.sum() == pytest.approx(moments["m10"] / moments["m00"], abs=0.05)
    assert (coverage * v).sum() / coverage.sum() == pytest.approx(moments["m01"] / moments["m00"], abs=0.05)


def test_nearer_faces_hide_farther_ones_and_colours_follow_vertices() -> None:
    vertices, faces = ball()
    both = np.concatenate([vertices + [0, 0, 0.2], vertices])
    colours = np.repeat([[255, 0, 0], [0, 0, 255]], len(vertices), axis=0)
    shaded, coverage = overlay.render_mesh(both, np.concatenate([faces, faces + len(vertices)]), K, 320, 240, colours)
    u, v = np.round(project_numpy(PLACE, K)).astype(int)
    assert coverage[v, u] == 1 and shaded[v, u, 2] > 50 and shaded[v, u, 0] == 0


def test_mesh_behind_the_camera_draws_nothing() -> None:
    vertices, faces = ball()
    assert (overlay.overlay_mesh(grey(), vertices * [1, 1, -1], faces, K) == 128).all()


def test_crop_view_moves_image_and_intrinsics_together() -> None:
    vertices, faces = ball()
    pixels = project_numpy(vertices, K)
    box = square_box(pixels, 1.5)
    full = overlay.mesh_silhouette(vertices, faces, K, 320, 240).astype(np.uint8) * 255
    crop, crop_K, affine = overlay.crop_view(np.repeat(full[..., None], 3, axis=2), K, box, 300)
    np.testing.assert_allclose(project_numpy(vertices, crop_K), transform_points(pixels, affine), atol=1e-9)
    redrawn = overlay.mesh_silhouette(vertices, faces, crop_K, 300, 300)
    assert ((crop[..., 0] > 127) == redrawn).mean() > 0.985
    rows, columns = np.nonzero(redrawn)
    seen_rows, seen_columns = np.nonzero(crop[..., 0] > 127)
    assert abs(rows.mean() - seen_rows.mean()) < 0.5 and abs(columns.mean() - seen_columns.mean()) < 0.5


def test_figures_are_written_whole(tmp_path: Path) -> None:
    vertices, faces = ball()
    joints = fan()
    hands = [
        HandView("without identity", vertices * 1.1, joints * 1.1, 12.3, overlay.ANONYMOUS_COLOUR),
        HandView("with identity", vertices, joints, 4.5),
    ]
    box = square_box(project_numpy(joints, K), 2.0)
    image = grey()
    silhouette = overlay.mesh_silhouette(vertices, faces, K, CROP_PIXELS, CROP_PIXELS)
    seen = box, project_numpy(joints, K), np.ones(21)
    demo_figure(tmp_path / "a" / "x_plot.jpg", image, K, faces, hands, *seen, true_vertices=vertices, title="x")
    demo_figure(tmp_path / "a" / "y_plot.png", image, K, faces, hands[1:], *seen, close_silhouette=silhouette)
    lines = ["hand 170.0"] * 7
    shapes = [ShapeView("true", vertices, joints, lines), ShapeView("off", vertices * 1.05, joints * 1.05, lines)]
    identity_figure(tmp_path / "a" / "identity.png", shapes, faces, vertices, "subject 1")
    for name in ("x_plot.jpg", "y_plot.png", "identity.png"):
        picture = cv2.imread(str(tmp_path / "a" / name))
        assert picture is not None and min(picture.shape[:2]) > 300 and picture.std() > 10, name
    assert len(list((tmp_path / "a").iterdir())) == 3 and (image == 128).all()
    identity = cv2.imread(str(tmp_path / "a" / "identity.png"))
    assert (identity[-5:] == 255).all() and (identity[-80:] < 100).any()  # its lines are there, and not cut off


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_mesh_files_keep_vertices_order_colours_and_frame(tmp_path: Path, suffix: str) -> None:
    vertices, faces = ball()
    colours = np.random.default_rng(0).integers(0, 255, vertices.shape, dtype=np.uint8)
    write_mesh(tmp_path / f"m{suffix}", vertices, faces, colours)
    back_vertices, back_faces = read_mesh(tmp_path / f"m{suffix}")
    np.testing.assert_allclose(back_vertices, vertices, atol=1e-6)
    np.testing.assert_array_equal(back_faces, faces)
    raw = trimesh.load_mesh(tmp_path / f"m{suffix}", process=False)
    np.testing.assert_array_equal(np.asarray(raw.visual.vertex_colors)[:, :3], colours)
    for wrong in ((0.5, 0.2, 0.1), (300, -1, 0), np.full((len(vertices), 4), 9)):
        with pytest.raises(ValueError, match="whole numbers from 0 to 255"):
            write_mesh(tmp_path / "wrong.ply", vertices, faces, wrong)
    expected_z = -1 if suffix == ".glb" else 1  # glTF looks along -z
    assert np.sign(raw.vertices[:, 2].mean()) == expected_z and raw.volume > 0
    write_mesh(tmp_path / f"n{suffix}", vertices, faces, overlay.IDENTITY_COLOUR)
    write_mesh(tmp_path / f"o{suffix}", vertices, faces)
    assert len(list(tmp_path.iterdir())) == 3


def test_bad_meshes_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    vertices, faces = ball()
    with pytest.raises(ValueError, match=r"\.obj"):
        write_mesh(tmp_path / "m.obj", vertices, faces)
    with pytest.raises(ValueError, match="vertex 7 is not finite"):
        write_mesh(tmp_path / "m.ply", np.where(np.arange(len(vertices))[:, None] == 7, np.nan, vertices), faces)
    with pytest.raises(ValueError, match="faces must index"):
        write_mesh(tmp_path / "m.ply", vertices[:5], faces)
    assert list(tmp_path.iterdir()) == []
