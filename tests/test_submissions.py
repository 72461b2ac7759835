"""Official result files: what a server's own reader would find in them, and what is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.evaluation.submission_checks import SubmissionError
from src.evaluation.submissions import (
    read_dexycb,
    read_lists,
    unmirror,
    write_dexycb,
    write_lists,
)

# HO-3D's order as docs/facts.md 4 words it, written out by name, independently of the index tables in use.
STANDARD = ["wrist"] + [f"{f}{i}" for f in ("thumb", "index", "middle", "ring", "little") for i in (1, 2, 3, "tip")]
HO3D = ["wrist"] + [f"{f}{i}" for f in ("index", "middle", "little", "ring", "thumb") for i in (1, 2, 3)]
HO3D += [f"{f}tip" for f in ("thumb", "index", "middle", "ring", "little")]


def make_hands(n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Fans of five straight fingers half a metre away, and 778 points about them (float32 as from a network)."""
    rng = np.random.default_rng(0)
    joints = np.zeros((n, 21, 3))
    for finger, angle in enumerate((-0.9, -0.3, 0.0, 0.3, 0.6)):
        for part, reach in enumerate((0.09, 0.125, 0.15, 0.17) if finger else (0.035, 0.07, 0.1, 0.125)):
            joints[:, 1 + 4 * finger + part] = [reach * np.sin(angle), -reach * np.cos(angle), 0.0]
    joints += rng.normal(scale=0.003, size=joints.shape)
    vertices = joints[:, rng.integers(0, 21, 778)] + rng.normal(scale=0.008, size=(n, 778, 3))
    place = rng.uniform([-0.1, -0.1, 0.5], [0.1, 0.1, 0.9], (n, 1, 3))
    return (joints + place).astype(np.float32), (vertices + place).astype(np.float32)


def test_freihand_file_is_what_the_server_reads(tmp_path: Path) -> None:
    joints, vertices = make_hands()
    path, archive = write_lists(tmp_path / "exp.json", "freihand", joints, vertices, np.arange(4), np.arange(4))
    content = json.loads(path.read_text())
    assert len(content) == 2 and len(content[0]) == len(content[1]) == 4
    np.testing.assert_allclose(content[0], joints, atol=1e-9)
    np.testing.assert_allclose(content[1], vertices, atol=1e-9)
    with zipfile.ZipFile(archive) as bundle:
        assert bundle.namelist() == ["pred.json"] and bundle.testzip() is None
        assert bundle.read("pred.json") == path.read_bytes()
    for file in (path, archive):
        back = read_lists(file, "freihand", 4)
        np.testing.assert_allclose(back[0], joints, atol=1e-9)
        np.testing.assert_allclose(back[1], vertices, atol=1e-9)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["exp.json", "exp.zip"]


def test_ho3d_file_has_its_joint_order_and_opengl_axes(tmp_path: Path) -> None:
    joints, vertices = make_hands()
    names = ["AP10/0000", "AP10/0001", "SB11/0000", "SB11/0007"]
    path, archive = write_lists(tmp_path / "ho3d.json", "ho3d_v3", joints, vertices, names, names)
    written = np.array(json.loads(path.read_text())[0])
    for column, name in enumerate(HO3D):
        expected = joints[:, STANDARD.index(name)] * np.float32([1, -1, -1])
        np.testing.assert_allclose(written[:, column], expected, atol=1e-9, err_msg=name)
    assert (np.array(json.loads(path.read_text())[1])[..., 2] < 0).all()
    back = read_lists(archive, "ho3d_v3", 4)
    np.testing.assert_allclose(back[0], joints, atol=1e-9)
    np.testing.assert_allclose(back[1], vertices, atol=1e-9)


def test_dexycb_file_has_64_fields_in_millimetres_and_left_hands_mirrored_back(tmp_path: Path) -> None:
    joints, _ = make_hands()
    ids, is_left = np.array([2, 3, 10, 11]), np.array([False, True, False, True])
    path = write_dexycb(tmp_path / "s1.txt", joints, ids, is_left, expected_ids=ids[:3])
    lines = path.read_text().split("\n")
    assert lines[-1] == "" and len(lines) == 5
    for row, line in enumerate(lines[:-1]):
        fields = line.split(",")
        assert len(fields) == 64 and int(fields[0]) == ids[row]
        expected = joints[row].astype(float) * 1000 * ([-1, 1, 1] if is_left[row] else [1, 1, 1])
        np.testing.assert_allclose(np.array(fields[1:], float).reshape(21, 3), expected, atol=1e-6)
    back_ids, back = read_dexycb(path, expected_ids=ids)
    np.testing.assert_array_equal(back_ids, ids)
    np.testing.assert_allclose(unmirror(back, is_left), joints, atol=1e-9)


def test_wrong_order_count_unit_axes_and_values_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    joints, vertices = make_hands()
    path, ids = tmp_path / "f.json", np.arange(4)

    def refused(message: str, j: np.ndarray = joints, v: np.ndarray = vertices, i: np.ndarray = ids) -> None:
        with pytest.raises(SubmissionError, match=message):
            write_lists(path, "freihand", j, v, i, ids)

    refused("row 1 is image 2, but the official order has 1", i=np.array([0, 2, 1, 3]))
    refused("3 predictions for 4 images", i=ids[:3])
    refused("Wrong unit", j=joints * 1000, v=vertices * 1000)
    refused("Wrong unit", j=joints / 0.2, v=vertices / 0.2)
    refused("root-relative", j=joints - joints[:, :1], v=vertices - joints[:, :1])
    refused("wrong axes", j=joints * [1, -1, -1], v=vertices * [1, -1, -1])
    refused("another order", j=joints[:, [STANDARD.index(name) for name in HO3D]])
    bent, mirror = joints.copy(), np.array([-1, 1, 1])
    for tip in (8, 12, 16, 20):  # away from the camera, which sees the back of a right hand with its thumb on the left
        bent[:, tip] = bent[:, tip - 3] + [0, -0.03, 0.04]
    write_lists(path, "freihand", bent, vertices, ids, ids)
    path.unlink()
    path.with_suffix(".zip").unlink()
    refused("all right hands are mirrored", j=bent * mirror, v=vertices * mirror)
    reverse = [0, *range(17, 21), *range(13, 17), *range(9, 13), *range(5, 9), *range(1, 5)]
    refused("order is thumb, index", j=joints[:, reverse])
    left = np.array([False, True, True, False])
    with pytest.raises(SubmissionError, match="all left hands are mirrored"):
        write_dexycb(tmp_path / "d.txt", unmirror(bent, left), ids, left, ids)
    refused("share frame and unit", v=vertices - joints[:, :1])
    refused("row 2 is not finite", j=np.where(np.arange(4)[:, None, None] == 2, np.nan, joints))
    refused("vertices has shape", v=vertices[:, :777])
    with pytest.raises(SubmissionError, match="4 predictions for 3960 images"):
        write_lists(path, "freihand", joints, vertices, ids, np.arange(3960))
    with pytest.raises(SubmissionError, match="row 0 is image b"):
        write_lists(path, "ho3d_v2", joints, vertices, list("badc"), list("abcd"))
    with pytest.raises(SubmissionError, match="'ho3d_v4' is unknown"):
        write_lists(path, "ho3d_v4", joints, vertices, list("abcd"), list("abcd"))
    assert list(tmp_path.iterdir()) == []


def test_dexycb_refuses_missing_and_disordered_ids(tmp_path: Path) -> None:
    joints, _ = make_hands()
    right = np.zeros(4, bool)
    with pytest.raises(SubmissionError, match=r"2 of 6 images are missing, first \[4, 5\].*both hand sides"):
        write_dexycb(tmp_path / "d.txt", joints, np.arange(4), right, np.arange(6))
    with pytest.raises(SubmissionError, match="ids must rise"):
        write_dexycb(tmp_path / "d.txt", joints, np.array([0, 2, 2, 3]), right, np.arange(1))
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_refused_on_reading(tmp_path: Path) -> None:
    joints, vertices = make_hands()
    path, archive = write_lists(tmp_path / "f.json", "freihand", joints, vertices, np.arange(4), np.arange(4))
    whole = path.read_text()
    for text, message in (
        (whole[:1000], "not JSON"),
        ("[[], [], []]", "two lists"),
        (whole.replace("[[[", "[[[NaN, 0, 0], [", 1), "do not form an array|shape"),
        (json.dumps([(joints * 1000).tolist(), (vertices * 1000).tolist()]), "Wrong unit"),
    ):
        path.write_text(text)
        with pytest.raises(SubmissionError, match=message):
            read_lists(path, "freihand", 4)
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("folder/pred.json", whole)
    with pytest.raises(SubmissionError, match="folder/pred.json"):
        read_lists(archive, "freihand", 4)
    text = write_dexycb(tmp_path / "d.txt", joints, np.arange(4), np.zeros(4, bool), np.arange(4)).read_text()
    for broken, message in (
        (text + "\n", "line 5 has 1 fields"),
        (text.replace(",", ";", 1), "line 1 has 63 fields"),
        (text.replace(text.split(",")[1], "nan", 1), "row 0 is not finite"),
        (text.replace(text.split(",")[1], "abc", 1), "line 1"),
    ):
        (tmp_path / "d.txt").write_text(broken)
        with pytest.raises(SubmissionError, match=message):
            read_dexycb(tmp_path / "d.txt")
