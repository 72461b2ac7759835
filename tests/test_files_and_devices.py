"""Small things that every command rests on: files that cannot be written or read, how to install, which device."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from utils import install
from utils.artifact_checks import ArtifactError, checked_array
from utils.device import choose_device
from utils.files import atomic_path, no_room_error, read_reason, what_it_is, writable_file, writable_folder


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_whatever_the_writer_makes_of_it(tmp_path: Path, number: int) -> None:
    """The system's error, one that a library raised while it handled that, and one that only says its words."""
    try:
        try:
            raise OSError(number, os.strerror(number))
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0") from None
    except RuntimeError as error:
        behind = error
    for found in (OSError(number, "x"), behind, ValueError(f"I/O error: {os.strerror(number)} (os error)")):
        explained = no_room_error(tmp_path / "a.npz", found)
        assert explained is not None and explained.errno == number
        assert "a.npz: not written" in str(explained) and "MB free" in str(explained)
    assert no_room_error(tmp_path / "a.npz", PermissionError(errno.EACCES, "no")) is None


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent == path.parent and not path.exists()
        temporary.write_text("first")
    with pytest.raises(OSError, match="The file of that name is as it was"), atomic_path(path) as temporary:
        temporary.write_text("half of the sec")
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("other")
        raise KeyboardInterrupt
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]


def test_outputs_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    assert writable_folder(tmp_path / "a" / "b").is_dir() and not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=f"--out {path}: cannot be written to"):
            writable_folder(path, "--out")
    with pytest.raises(OSError, match="--json .*is a folder; give the name of a file"):
        writable_file(tmp_path, "--json")
    with pytest.raises(OSError, match=r"--json .*x\.json: is the file of --input as well"):
        writable_file(tmp_path / "x.json", "--json", {"--other": None, "--input": f"{tmp_path}/c/../x.json"})
    assert writable_file(tmp_path / "c" / "x.json", "--json").parent.is_dir()


def test_what_a_file_is_by_its_first_bytes(tmp_path: Path) -> None:
    path, words = tmp_path / "a.safetensors", "header too large\nand more"
    for content, said in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull fetches the file"),
        (b"<html><body>404: not found, as this server says</body></html>", "61 bytes that begin with b'<html>"),
        (b"\0" * 100, "100 bytes that begin with"),
        (b"short", "5 bytes that begin with b'short'"),
        (b"\x93" * 200, "header too large"),
    ):
        path.write_bytes(content)
        found = what_it_is(path, ValueError(words))
        assert said in found and "and more" not in found
    assert what_it_is(tmp_path / "none", ValueError(words)) == "header too large"


def test_unsafe_advice_and_addresses_are_not_repeated() -> None:
    assert "allow_pickle" not in read_reason(ValueError("Object arrays cannot be loaded when allow_pickle=False"))
    assert "weights_only" not in read_reason(RuntimeError("re-running torch.load with weights_only=False"))
    assert (
        read_reason(OSError("cannot identify image file <_io.BytesIO object at 0x7f01>"))
        == "cannot identify image file"
    )


def test_how_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Into the Python that runs; from the requirements of a clone, or as an extra of the wheel."""
    assert shlex.split(install.pip_install("a>=1", "b c")) == [sys.executable, "-m", "pip", "install", "a>=1", "b c"]
    monkeypatch.setattr(install, "ROOT", tmp_path)
    assert shlex.split(install.pip_install_extra("detect"))[-1] == "handid[detect]"
    (tmp_path / "requirements-detect.txt").write_text("")
    words = shlex.split(install.pip_install_extra("detect"))
    assert words[-2] == "-r" and Path(words[-1]).resolve() == (tmp_path / "requirements-detect.txt").resolve()


def test_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_there, name, expected in ((False, "auto", "cpu"), (True, "auto", "cuda"), (True, "cpu", "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=is_there: there)
        assert choose_device(name).type == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device cuda, but torch sees no GPU"):
        choose_device("cuda")
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    choose_device("cpu", 3)
    assert asked == [3]


def test_arrays_of_a_file() -> None:
    found = checked_array("x", [[1, 2]], (None, 2), np.float32, "f.npz")
    assert found.dtype == np.float32 and found.shape == (1, 2)
    for value, dtype, words in (
        (np.zeros((2, 3)), np.float32, r"f.npz: x has shape \(2, 3\); it must be \(None, 2\)"),
        (np.zeros((1, 2)), np.int64, "x has dtype float64; it must be int64"),
        (np.array([["a", "b"]]), np.float32, "must be real numbers"),
        (np.array([[1.0, np.nan]]), np.float32, r"x\[0, 1\] is nan; every value must be finite"),
        (np.array([[1.0, 1e300]]), np.float32, "reaches 1e\\+300, more than float32 can hold"),
    ):
        with pytest.raises(ArtifactError, match=words):
            checked_array("x", value, (None, 2), dtype, "f.npz")


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """As root, /dev/null would become a file, for every process of the machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match=r"pipe: is a device or a pipe"), atomic_path(pipe):
        pass
    with pytest.raises(OSError, match=r"--output .*pipe: is a device or a pipe"):
        writable_file(pipe, "--output")
    assert pipe.is_fifo()
