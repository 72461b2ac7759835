"""The restricted reader: what it must read, and attacks that must neither run nor hurt."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from mano_pickle import Python2Pickler, fake_chumpy, write_mano_pickle
from random_assets import random_assets

from template import load_hand_assets
from template.safe_pickle import PickleFormatError, UnsafePickleError, safe_load

FREE = {  # plain data and arrays of every kind that model files use
    "float": np.linspace(0, 1, 12).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(24, dtype=np.uint32).reshape(2, 3, 4)),
    "big_endian": np.arange(5, dtype=">f4"),
    "bool": np.array([True, False]),
    "text": np.array(["a", "bcd"]),
    "bytes": np.array([b"a", b"bcd"]),
    "empty": np.zeros((0, 3)),
    "zero_d": np.array(2.5),
    "scalar": np.float32(1.5),
    "plain": [1, -2.5, None, True, "text", (1, (2, 3)), {"a": []}, 2**70],
}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    found = safe_load(write(tmp_path / "a.pkl", pickle.dumps(FREE, protocol=protocol)))
    assert found["plain"] == FREE["plain"]
    for key in FREE.keys() - {"plain"}:
        np.testing.assert_array_equal(found[key], FREE[key], err_msg=key)
        assert found[key].dtype == FREE[key].dtype.newbyteorder("=")


def test_python_2_bytes_are_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Python2Pickler(buffer).dump(FREE)
    found = safe_load(write(tmp_path / "a.pkl", buffer.getvalue()))
    for key in FREE.keys() - {"plain"}:
        np.testing.assert_array_equal(found[key], FREE[key], err_msg=key)


@pytest.mark.parametrize("dump", [pickle.dumps, None], ids=["python3", "python2"])
@pytest.mark.parametrize("kind", ["csc_matrix", "csr_matrix", "coo_matrix"])
def test_sparse_matrices_are_read(tmp_path: Path, kind: str, dump: Callable | None) -> None:
    matrix = getattr(scipy.sparse, kind)(np.arange(12.0).reshape(3, 4) * (np.arange(12).reshape(3, 4) % 3 == 0))
    buffer = io.BytesIO()
    Python2Pickler(buffer).dump([matrix, matrix])
    data = pickle.dumps([matrix, matrix]) if dump else buffer.getvalue()
    found = safe_load(write(tmp_path / "a.pkl", data))
    assert scipy.sparse.issparse(found[0]) and found[0] is found[1]
    np.testing.assert_array_equal(found[0].toarray(), matrix.toarray())


def test_an_unknown_class_is_refused(tmp_path: Path) -> None:
    with fake_chumpy() as (ch_class, _):
        mesh = ch_class()
        mesh.__dict__.update(v=np.ones((4, 3)), f=np.arange(3))
        data = pickle.dumps({"mesh": [mesh]}, protocol=2).replace(b"chumpy.ch\nCh", b"psbody.mesh.mesh\nMesh")
    with pytest.raises(UnsafePickleError, match="psbody.mesh.mesh.Mesh"):
        safe_load(write(tmp_path / "transform.pkl", data))


def call(module: str, name: str, *arguments: Any) -> bytes:
    """A pickle that calls module.name(*arguments), protocol 0 style."""
    body = pickle.dumps(arguments, protocol=2)[2:-1]
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + body + b"R."


def stack_global(module: str, name: str, *arguments: Any) -> bytes:
    """The same with STACK_GLOBAL, where a dotted name walks attributes."""
    text = b"".join(pickle.SHORT_BINUNICODE + bytes([len(part)]) + part.encode() for part in (module, name))
    return b"\x80\x04" + text + pickle.STACK_GLOBAL + pickle.dumps(arguments, protocol=2)[2:-1] + b"R."


def run_payloads(marker: Path) -> dict[str, bytes]:
    shell, code = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    return {
        "os.system": call("posix", "system", shell),
        "eval": call("builtins", "eval", code),
        "exec, Python 2 name": call("__builtin__", "exec", code),
        "subprocess": call("subprocess", "check_output", ["touch", str(marker)]),
        "open": call("builtins", "open", str(marker), "w"),
        "dotted name": stack_global("os", "path.os.system", shell),
        "dotted name under an allowed module": stack_global("numpy", "testing.os.system", shell),
        "INST opcode": f"(S'{shell}'\niposix\nsystem\n.".encode(),
        "OBJ opcode": f"(cposix\nsystem\nS'{shell}'\no.".encode(),
    }


@pytest.mark.parametrize("name", sorted(run_payloads(Path("x"))))
def test_payload_is_refused_and_has_not_run(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "it_ran"
    payload = run_payloads(marker)[name]
    if name not in ("OBJ opcode", "dotted name under an allowed module"):
        pickle.loads(payload)  # the attack is real: Python's own reader runs it
        assert marker.exists()
        marker.unlink()
    path = write(tmp_path / "MANO_RIGHT.pkl", payload)
    with pytest.raises((UnsafePickleError, PickleFormatError), match="MANO_RIGHT.pkl"):
        safe_load(path)
    with pytest.raises((UnsafePickleError, PickleFormatError)):
        load_hand_assets(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("builtins", "object.__getattribute__"),
        ("os", "popen"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "dtype.__class__"),
        ("numpy.f2py.crackfortran", "getlincoef"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy._core.multiarray", "_reconstruct.__globals__"),
        ("scipy.sparse.csc", "csc_matrix.__init__"),
        ("chumpy.ch", "Ch.__init__.__globals__"),
        ("chumpy.ch", "ChLambda"),
        ("_codecs", "lookup"),
        ("copyreg", "__newobj__"),
        ("operator", "attrgetter"),
        ("functools", "partial"),
    ],
)
def test_other_names_are_refused_and_named(tmp_path: Path, module: str, name: str) -> None:
    for payload in (call(module, name, "x"), stack_global(module, name, "x")):
        path = write(tmp_path / "a.pkl", payload)
        with pytest.raises(UnsafePickleError) as caught:
            safe_load(path)
        assert f"{module}.{name}" in str(caught.value) and str(path) in str(caught.value)


def test_payload_hidden_in_a_valid_model_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "it_ran"

    class Payload:
        def __reduce__(self) -> tuple:
            return exec, (f"open({str(marker)!r}, 'w')",)

    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", random_assets(), bs_style=Payload())
    with pytest.raises(UnsafePickleError, match="exec"):
        load_hand_assets(tmp_path)
    assert not marker.exists()


NDARRAY, RECONSTRUCT = b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize(
    "data",
    [
        b"cbuiltins\nobject\n)R.",  # calling object
        RECONSTRUCT + b")R)R.",  # calling the result of a call
        b"I1\n)R.",  # calling a number
        b"U\x01a)R.",
        b"ccopy_reg\n_reconstructor\n(cnumpy\ndtype\ncbuiltins\nobject\nNtR.",  # an instance of what is no container
        b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\ncchumpy.ch\nCh\nNtR.",  # a base that is not object
        b"\x80\x02cnumpy.core.multiarray\nscalar\n)\x81.",  # NEWOBJ of a function
        b"\x80\x02cchumpy.ch\nCh\n}b.",  # setting the state of a class, not of an instance
        b"\x80\x02cchumpy.ch\nCh\n)\x81}b}b.",  # setting it twice
        b"\x80\x02cchumpy.ch\nCh\n)\x81I1\na.",  # appending to an object
        b"\x80\x02cchumpy.ch\nCh\n)\x81I1\nI2\ns.",  # setting an item of an object
        b"\x80\x02}))s.",  # a tuple as a key
        b"Pname\n.",  # persistent id
        b"\x80\x02\x82\x01.",  # extension registry
        b"\x80\x05\x97.",  # out-of-band buffer
        b"\x80\x02cchumpy.ch\nCh\n)\x81}\x92.",  # NEWOBJ_EX
        b"\x80\x04\x8f.",  # a set
    ],
)
def test_misused_opcodes_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises((UnsafePickleError, PickleFormatError), match="a.pkl"):
        safe_load(write(tmp_path / "a.pkl", data))


def array_pickle(shape: tuple, dtype: str, data: bytes, dtype_state: tuple | None = None) -> bytes:
    """_reconstruct with this shape, dtype string and data, and the dtype's own state if given."""

    def body(value: Any) -> bytes:
        return pickle.dumps(value, protocol=3)[2:-1]

    described = b"cnumpy\ndtype\n" + body((dtype, 0, 1)) + b"R" + (body(dtype_state) + b"b" if dtype_state else b"")
    return (
        b"\x80\x03"
        + RECONSTRUCT
        + b"("
        + NDARRAY
        + body((0,))
        + body(b"b")
        + b"tR("
        + body(1)
        + body(shape)
        + described
        + body(False)
        + body(data)
        + b"tb."
    )


def test_array_pickle_helper_makes_valid_arrays(tmp_path: Path) -> None:
    data = array_pickle((2,), "f8", np.array([1.0, 2.0]).tobytes(), (3, "<", None, None, None, -1, -1, 0))
    assert safe_load(write(tmp_path / "a.pkl", data)).tolist() == [1.0, 2.0] == pickle.loads(data).tolist()


@pytest.mark.parametrize(
    "data, message",
    [
        (array_pickle((10**6, 10**6), "f8", b"12345678"), "8 bytes of data"),
        (array_pickle((-1, -1), "f8", b"12345678"), "shape"),
        (array_pickle((2**40, 2**40), "f8", b""), "0 bytes of data"),
        (array_pickle((1,), "O8", b"12345678"), "dtype 'O8'"),
        (array_pickle((1,), "S99999", b"1"), "dtype 'S99999'"),
        (array_pickle((1,), "V8", b"12345678", (3, "|", None, None, None, 8, 1, 63)), "dtype 'V8'"),
        (array_pickle((1,), "i8,O", b"12345678"), "dtype 'i8,O'"),
    ],
)
def test_dishonest_arrays_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(PickleFormatError, match=message):
        safe_load(write(tmp_path / "a.pkl", data))


def test_index_outside_a_sparse_matrix_is_refused(tmp_path: Path) -> None:
    for kind in ("csc_matrix", "csr_matrix"):
        matrix = getattr(scipy.sparse, kind)(np.eye(3))
        matrix.indices[1] = 10**6  # toarray() would write outside its memory
        with pytest.raises(PickleFormatError, match="a.pkl"):
            safe_load(write(tmp_path / "a.pkl", pickle.dumps(matrix)))


def test_claimed_sparse_shape_is_not_allocated(tmp_path: Path) -> None:
    huge = scipy.sparse.csc_matrix((10**9, 2))
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", random_assets(), J_regressor=huge)
    with pytest.raises(ValueError, match=r"J_regressor has shape \(1000000000, 2\)"):
        load_hand_assets(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b"x.",  # a bytearray of a petabyte
        b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"x.",  # bytes of a petabyte
        b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"x.",  # a frame of a petabyte
        b"(" * 50 + b"t" * 200 + b".",
        b"]q\x00h\x00a.",  # a list that contains itself
        b")" + b"\x85" * 20_000 + b".",  # a tuple nested 20,000 deep
        b"h\x05.",  # a memo entry that is not there
        b"",
        b"\x80",
        b"\x80\x07.",
        b"not a pickle at all",
        b"\xff" * 40,
    ],
)
def test_damage_and_bombs_are_errors(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(PickleFormatError, match="a.pkl"):
        safe_load(write(tmp_path / "a.pkl", data))


def test_large_memo_numbers_cost_nothing(tmp_path: Path) -> None:
    data = b"I7\nr" + struct.pack("<I", 2**31 - 1) + b"0j" + struct.pack("<I", 2**31 - 1) + b"."
    assert safe_load(write(tmp_path / "a.pkl", data)) == 7


def test_truncation_anywhere_is_an_error(tmp_path: Path) -> None:
    write_mano_pickle(tmp_path / "whole.pkl", random_assets())
    whole = (tmp_path / "whole.pkl").read_bytes()
    for length in [*range(0, 400, 7), *np.linspace(400, len(whole) - 1, 12).astype(int)]:
        with pytest.raises((PickleFormatError, UnsafePickleError)):  # half a name is an unknown name
            safe_load(write(tmp_path / "a.pkl", whole[:length]))


def test_select_with_wrong_indices_is_refused(tmp_path: Path) -> None:
    with fake_chumpy() as (ch_class, select_class):
        inner, outer = ch_class(), select_class()
        inner.__dict__.update(x=np.arange(4.0))
        outer.__dict__.update(a=inner, idxs=np.array([3, 1]), preferred_shape=(2, 1))
        good = pickle.dumps(outer)
        outer.idxs = np.array([3, -1])
        bad = pickle.dumps(outer)
    np.testing.assert_array_equal(safe_load(write(tmp_path / "a.pkl", good)), [[3.0], [1.0]])
    with pytest.raises(PickleFormatError, match="indices do not fit an array of 4 values"):
        safe_load(write(tmp_path / "a.pkl", bad))


def test_data_that_is_used_again_and_again_is_refused(tmp_path: Path) -> None:
    """A thousand copies of a megabyte, from a file of one."""
    body = pickle.dumps("a" * 10**6, protocol=2)[2:-1]
    call_again = b"c_codecs\nencode\nj\x00\x00\x00\x07X\x06\x00\x00\x00latin1\x86R"
    data = b"\x80\x02(" + body + b"r\x00\x00\x00\x07" + call_again * 1000 + b"t."
    with pytest.raises(PickleFormatError, match="far larger than the file"):
        safe_load(write(tmp_path / "a.pkl", data))


def test_one_file_changes_nothing_for_the_next(tmp_path: Path) -> None:
    """BUILD's slots could set attributes of the reader's own classes and functions."""
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", random_assets())
    for name in (b"cchumpy.ch\nCh\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\ndtype\n"):
        for state in ((None, {"resolve": 1, "__defaults__": (1,)}), {"resolve": 1}):
            data = b"\x80\x02" + name + pickle.dumps(state, protocol=2)[2:-1] + b"b."
            with pytest.raises(UnsafePickleError, match="sets the state"):
                safe_load(write(tmp_path / "a.pkl", data))
    assert load_hand_assets(tmp_path).hash == random_assets().hash


def test_too_large_a_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("template.safe_pickle.MAX_FILE_BYTES", 10)
    with pytest.raises(PickleFormatError, match="11 bytes"):
        safe_load(write(tmp_path / "a.pkl", b"x" * 11))
