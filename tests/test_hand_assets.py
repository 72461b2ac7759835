"""Finding, reading, checking and mirroring hand models."""

from __future__ import annotations

import logging
import pickletools
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from mano_pickle import write_mano_pickle
from random_assets import mano_dictionary, random_assets

import handid
import template.assets
from template import HandAssets, load_hand_assets, mirror_assets
from template.assets import STAND_IN_PATH, STAND_INS

ASSETS = random_assets(seed=1)


@pytest.fixture(autouse=True)
def no_hand_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No MANO_DIR, and nothing but the stand-in in template/."""
    monkeypatch.delenv("MANO_DIR", raising=False)
    monkeypatch.setattr(template.assets, "TEMPLATE_DIR", tmp_path / "empty")


def assert_same(found: HandAssets, expected: HandAssets) -> None:
    for entry in fields(HandAssets):
        np.testing.assert_array_equal(getattr(found, entry.name), getattr(expected, entry.name), err_msg=entry.name)


def test_official_pickle_is_read_without_chumpy(tmp_path: Path) -> None:
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", ASSETS)
    text = (tmp_path / "MANO_RIGHT.pkl").read_bytes()
    for module, name in (
        ("chumpy.reordering", "Select"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("scipy.sparse.csc", "csc_matrix"),
    ):
        assert f"{module}\n{name}\n".encode() in text
    assert "BINBYTES" not in {opcode.name for opcode, _, _ in pickletools.genops(text)}
    found = load_hand_assets(tmp_path)
    assert_same(found, ASSETS)
    assert found.faces.dtype == np.int64 and found.v_template.dtype == np.float64
    assert_same(load_hand_assets(tmp_path / "MANO_RIGHT.pkl"), ASSETS)


def test_npz_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "MANO_RIGHT.npz", **mano_dictionary(ASSETS))
    assert_same(load_hand_assets(tmp_path), ASSETS)


def test_order_of_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert load_hand_assets().name == "stand-in"
    assert len(caplog.records) == 1 and "mano.is.tue.mpg.de" in caplog.text
    hands = [random_assets(seed=seed) for seed in range(3)]
    folders = [tmp_path / name for name in ("empty", "environment", "given")]
    for folder, hand in zip(folders, hands, strict=True):
        folder.mkdir()
        np.savez(folder / "MANO_RIGHT.npz", **mano_dictionary(hand))
    assert load_hand_assets().hash == hands[0].hash
    monkeypatch.setenv("MANO_DIR", str(folders[1]))
    assert load_hand_assets().hash == hands[1].hash
    assert load_hand_assets(folders[2]).hash == hands[2].hash


def test_missing_file_says_every_path_and_where_to_register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_hand_assets(tmp_path)
    for text in (str(tmp_path / "MANO_RIGHT.pkl"), str(tmp_path / "MANO_RIGHT.npz"), "https://mano.is.tue.mpg.de"):
        assert text in str(caught.value)
    with pytest.raises(FileNotFoundError, match="hand.pkl"):
        load_hand_assets(tmp_path / "hand.pkl")
    monkeypatch.setenv("MANO_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_hand_assets()


def test_other_side_only(tmp_path: Path) -> None:
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", ASSETS)
    with pytest.raises(FileNotFoundError, match="holds MANO_RIGHT.pkl, the right hand only"):
        load_hand_assets(tmp_path, side="left")
    with pytest.raises(ValueError, match="right hand by its name"):
        load_hand_assets(tmp_path / "MANO_RIGHT.pkl", side="left")
    with pytest.raises(ValueError, match="side is 'both'"):
        load_hand_assets(side="both")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("shapedirs", np.zeros((778, 3, 9)), r"shapedirs has shape \(778, 3, 9\), expected \(778, 3, 10\)"),
        ("v_template", np.zeros((779, 3)), r"v_template has shape \(779, 3\), expected \(778, 3\)"),
        ("f", np.zeros((1538, 4)), r"f has shape \(1538, 4\), expected \(1538, 3\)"),
        ("f", np.full((1538, 3), 778), "not vertex numbers 0 to 777"),
        ("hands_mean", None, "no array 'hands_mean'"),
        ("hands_mean", "zero", r"hands_mean has shape None"),
        ("weights", np.full((778, 16), 0.1), "weights .* must sum to 1; one is off by 0.6"),
        ("posedirs", np.full((778, 3, 135), np.nan), "posedirs holds 315090 values that are not finite"),
        ("kintree_table", np.zeros((2, 16)), "kintree_table has the parents"),
        ("kintree_table", np.zeros(3), r"kintree_table has shape \(3,\)"),
        ("v_template", np.zeros((778, 3), dtype="S3"), "v_template has dtype"),
        ("hands_components", ASSETS.hands_components.T, "rows of hands_components are not orthogonal.*transposed"),
        ("hands_mean", np.degrees(ASSETS.hands_mean), "hands_mean holds .* radians"),
        ("shapedirs", 1000 * ASSETS.shapedirs, "shapedirs moves a vertex by .* give metres"),
        ("posedirs", 1000 * ASSETS.posedirs, "posedirs moves a vertex by .* give metres"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, key: str, value: object, message: str) -> None:
    file = tmp_path / "MANO_RIGHT.pkl"
    write_mano_pickle(file, ASSETS, **{key: value})
    with pytest.raises(ValueError, match=message) as caught:
        load_hand_assets(tmp_path)
    assert str(file) in str(caught.value)


def test_a_mesh_inside_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", ASSETS)
    load_hand_assets(tmp_path)
    assert "inside out" not in caplog.text
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", ASSETS, f=ASSETS.faces[:, ::-1])
    load_hand_assets(tmp_path)
    assert "f turns the mesh inside out" in caplog.text


def test_damaged_npz_is_named(tmp_path: Path) -> None:
    file = tmp_path / "MANO_RIGHT.npz"
    np.savez_compressed(file, **mano_dictionary(ASSETS))
    whole = file.read_bytes()
    for damaged in (b"", b"not a zip", whole[:5000], whole[:9000] + bytes(500) + whole[9500:]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="MANO_RIGHT.npz"):
            load_hand_assets(file)
    np.savez(file, **mano_dictionary(ASSETS) | {"weights": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match="not a readable .npz of plain arrays"):
        load_hand_assets(file)


def test_left_hand_as_shipped_and_fixed(tmp_path: Path) -> None:
    left = replace(ASSETS, side="left")
    write_mano_pickle(tmp_path / "MANO_LEFT.pkl", left)
    assert_same(load_hand_assets(tmp_path, side="left"), left)
    fixed = load_hand_assets(tmp_path, side="left", fix_left_shapedirs=True)
    np.testing.assert_array_equal(fixed.shapedirs[:, 0], -left.shapedirs[:, 0])
    np.testing.assert_array_equal(fixed.shapedirs[:, 1:], left.shapedirs[:, 1:])
    assert fixed.hash != left.hash
    np.savez(tmp_path / "MANO_RIGHT.npz", **mano_dictionary(ASSETS))
    assert_same(load_hand_assets(tmp_path, fix_left_shapedirs=True), ASSETS)


def test_stand_in_left_is_the_mirrored_right() -> None:
    right, left = load_hand_assets(), load_hand_assets(side="left", fix_left_shapedirs=True)
    assert (left.name, left.side) == ("stand-in", "left")
    assert_same(mirror_assets(left), right)
    np.testing.assert_array_equal(left.v_template[:, 0], -right.v_template[:, 0])
    np.testing.assert_array_equal(left.shapedirs[:, 0], -right.shapedirs[:, 0])


def test_hash_names_the_content() -> None:
    assert random_assets(seed=1).hash == ASSETS.hash
    changed = replace(ASSETS, v_template=ASSETS.v_template + 1e-12)
    assert len({ASSETS.hash, changed.hash, replace(ASSETS, side="left").hash}) == 3


def test_a_copy_of_a_stand_in_is_no_mano(tmp_path: Path) -> None:
    """By content: under MANO's name its betas would be taken for MANO's."""
    for side in ("right", "left"):
        for name in ("mine.npz", f"MANO_{side.upper()}.npz"):
            shutil.copyfile(STAND_IN_PATH, tmp_path / name)
            found = load_hand_assets(tmp_path / name, side)
            assert (found.name, found.side) == ("stand-in", side)
            assert_same(found, load_hand_assets(STAND_IN_PATH, side))
        for path, name in STAND_INS.items():
            write_mano_pickle(tmp_path / f"MANO_{side.upper()}.pkl", load_hand_assets(path, side))
            assert load_hand_assets(tmp_path / f"MANO_{side.upper()}.pkl", side).name == name


def test_the_other_hand_is_told_by_its_mesh(tmp_path: Path) -> None:
    right = load_hand_assets(STAND_IN_PATH)
    write_mano_pickle(tmp_path / "hand.pkl", replace(right, hands_mean=right.hands_mean + 0.1))
    assert load_hand_assets(tmp_path / "hand.pkl").side == "right"
    with pytest.raises(ValueError, match="is the right hand by its mesh"):
        load_hand_assets(tmp_path / "hand.pkl", "left")
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", mirror_assets(right))
    with pytest.raises(ValueError, match="is the left hand by its mesh"):
        load_hand_assets(tmp_path)
    write_mano_pickle(tmp_path / "mm.pkl", replace(right, v_template=1000 * right.v_template))
    with pytest.raises(ValueError, match="metres"):
        load_hand_assets(tmp_path / "mm.pkl")


def test_never_one_hand_of_mano_and_the_other_of_the_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template.assets, "TEMPLATE_DIR", tmp_path)
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", ASSETS)
    assert load_hand_assets().name == "MANO"
    with pytest.raises(FileNotFoundError, match="the right hand only"):
        load_hand_assets(side="left")


def test_left_hands_are_mirrored_so_that_their_model_is_the_right_one() -> None:
    """Of a left hand's model, mirrored keypoints would be fitted by 25 mm wrongly."""
    left, points = load_hand_assets(STAND_IN_PATH, "left"), np.ones((1, 21, 2))
    K = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
    for call in (
        lambda: handid.fit(points, K, hand=left, side="left"),
        lambda: handid.calibrate(points, K=K, assets=left),
        lambda: handid.OnlineCalibration(K, assets=left),
        lambda: handid.personalise("x", K, format="hamer", hand=left),
    ):
        with pytest.raises(ValueError, match="the hand model is a left one"):
            call()
