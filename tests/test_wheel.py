"""The wheel: one package, built from this checkout, installed elsewhere and used from another folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import handid
from hatch_build import COMMANDS, FOLDERS, rewritten, shipped_files

ROOT = Path(__file__).parents[1]


def change(source: str) -> str:
    return rewritten(source.encode(), "file.py", ROOT).decode()


@pytest.mark.parametrize(
    ("checkout", "wheel"),
    [
        ("from utils.camera import project", "from handid.utils.camera import project"),
        ("from template import HandModel as H", "from handid.template import HandModel as H"),
        ("import numpy, src.models as m", "import numpy, handid.src.models as m"),
        ("def f():\n  é = 1; from  src import models", "def f():\n  é = 1; from  handid.src import models"),
        ("a = 'src.models.cmr.networks'", "a = 'handid.src.models.cmr.networks'"),
        ("e = 'see python -m datasets.write_shards'", "e = 'see python -m handid.datasets.write_shards'"),
        ("e = f'{{}}{x}: write it with run.py --phase eval'", "e = f'{{}}{x}: write it with handid --phase eval'"),
        ("e = 'pip install -r requirements-export.txt'", "e = 'pip install handid[export]'"),
    ],
)
def test_references_to_our_modules_move(checkout: str, wheel: str) -> None:
    assert change(checkout) == wheel


@pytest.mark.parametrize(
    "source",
    [
        "# from utils.camera import project",
        "import datasets_of_others\nfrom utilsx import y\nfrom . import utils\nfrom .template import a",
        "from torch.utils.data import Dataset",
        "names = ['template', 'datasets', 'template.ply', 'conv.weight', 'data.utils', 'src.no_such_module']",
        "path = root / 'src' / 'run.pyc'",
        "utils = template.conv",
    ],
)
def test_all_else_stays_to_the_byte(source: str) -> None:
    assert change(source) == source


def test_a_name_that_would_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"file\.py:2: import src\.models: .*'as'"):
        change("\nimport src.models")


def test_no_file_of_ours_imports_a_top_level_name_in_the_wheel() -> None:
    """Read line by line, without a syntax tree; and imports are all that differs in number of lines."""
    ours = re.compile(rf"^\s*(?:from|import)\s+(?:{'|'.join(FOLDERS)})\b", re.MULTILINE)
    for path in shipped_files(ROOT):
        if path.suffix == ".py":
            source = (ROOT / path).read_bytes()
            result = rewritten(source, str(path), ROOT)
            assert not ours.findall(result.decode()), path
            assert source.count(b"\n") == result.count(b"\n"), path


def test_a_mano_file_is_never_shipped(tmp_path: Path) -> None:
    (tmp_path / "template").mkdir()
    for name in ("MANO_RIGHT.pkl", "MANO_RIGHT.npz", "mano_left.npz", "stand_in.npz", "layer.py"):
        (tmp_path / "template" / name).touch()
    (tmp_path / "template" / "__pycache__").mkdir()
    (tmp_path / "template" / "__pycache__" / "layer.pyc").touch()
    assert {p.name for p in shipped_files(tmp_path) if p.parts[0] == "template"} == {"stand_in.npz", "layer.py"}


def test_runtime_requirements_stand_once() -> None:
    """requirements.txt (the environment of the scripts) and pyproject.toml (of the wheel) say the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def lines(name: str) -> list[str]:
        text = (ROOT / name).read_text().splitlines()
        return [line for line in text if line and not line.startswith(("#", "-r"))]

    extras = project["optional-dependencies"]
    runtime, tests = lines("requirements.txt"), {"pytest", "pytest-xdist", "hypothesis", "hatchling"}
    is_test = {line: re.match(r"[\w-]+", line)[0] in tests for line in runtime}
    assert [line for line in runtime if not is_test[line]] == project["dependencies"]
    assert {line for line in runtime if is_test[line]} <= set(extras["dev"])
    for name in set(extras) - {"dev"}:
        assert lines(f"requirements-{name}.txt") == extras[name], name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without isolation and without dependencies, so without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=300)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and this one's packages behind a .pth file: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("somebody") / ".venv"
    venv.create(folder, with_pip=False)
    executable = folder / "bin" / "python"
    packages = [entry for entry in sys.path if entry.endswith("site-packages")]
    place = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (place / "behind.pth").write_text("\n".join(packages) + "\n")
    words = ["--python", str(executable), "install", "--no-deps", "--no-index", "--ignore-installed", "-q", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=300)
    return executable


def say(python: Path, code: str, folder: Path) -> str:
    """What ``code`` prints, run in ``folder`` with nothing of the checkout on the path."""
    return run([str(python), "-c", code], folder)


def run(words: list[str], folder: Path) -> str:
    finished = finish(words, folder)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def finish(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    outside = ("PYTHONPATH", "PYTHONSAFEPATH", "MANO_DIR")
    environment = {key: value for key, value in os.environ.items() if key not in outside} | {"OMP_NUM_THREADS": "1"}
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False}
    return subprocess.run(words, cwd=folder, env=environment, **options)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_examples_run_with_the_wheel_from_another_folder(python: Path, example: Path, tmp_path: Path) -> None:
    """.ci/run runs them in the clone as well."""
    shutil.copyfile(example, tmp_path / example.name)
    assert run([str(python), example.name], tmp_path)
    written = [path for path in (tmp_path / "out" / "examples").rglob("*") if path.is_file()]
    assert any(path.suffix in (".glb", ".json") and path.stat().st_size for path in written)


def test_the_wheel_holds_one_package_and_its_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"handid", f"handid-{handid.__version__}.dist-info"}
    for name in ("weights/mano_identity.safetensors", "weights/prior.npz", "weights/weights.json", "py.typed"):
        assert f"handid/{name}" in names
    data = {f"handid/{path}" for path in map(str, shipped_files(ROOT)) if not path.startswith("handid/")}
    assert data <= set(names)
    assert {name.partition("/licenses/")[2] for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_import_costs_nothing_and_shadows_nobody(python: Path, tmp_path: Path) -> None:
    (tmp_path / "datasets.py").write_text("NAME = 'somebody else'")
    (tmp_path / "utils.py").write_text("NAME = 'somebody else'")
    code = """
import sys, handid
assert "torch" not in sys.modules and "numpy" not in sys.modules
assert set(handid.__all__) <= set(dir(handid))
import datasets, utils
from handid.utils.camera import project
from handid.datasets.sample import __doc__
print(datasets.NAME, utils.NAME, handid.__file__)
try:
    import template
except ImportError:
    print("no template")
"""
    said = say(python, code, tmp_path)
    assert said.startswith("somebody else somebody else ") and str(python.parents[1]) in said
    assert said.endswith("no template\n")


@pytest.mark.parametrize("command", [*COMMANDS, "handid"])
def test_help_loads_no_numerical_library(command: str) -> None:
    code = f"import {command}, sys; print(sorted({{'torch', 'numpy', 'scipy', 'cv2', 'trimesh'}} & set(sys.modules)))"
    words = [sys.executable, "-c", code]
    assert subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_module_of_the_wheel_can_be_found(python: Path, tmp_path: Path) -> None:
    """Every module that a shipped file imports from us exists: imports inside functions too."""
    code = """
import ast, importlib.util, pathlib, handid
root = pathlib.Path(handid.__file__).parent
names = set()
for path in root.rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("handid."):
            names.add(node.module)
print(len(names), [n for n in sorted(names)
                   if not root.joinpath(*n.split(".")[1:]).is_dir()
                   and not root.joinpath(*n.split(".")[1:]).with_suffix(".py").is_file()])
"""
    count, missing = say(python, code, tmp_path).split(maxsplit=1)
    assert int(count) > 100 and missing.strip() == "[]"


def test_commands_start_from_any_folder(python: Path, tmp_path: Path) -> None:
    for command in ("handid", "handid-calibrate", "handid-fit"):
        assert shutil.which(command, path=str(python.parent)), command
        assert run([str(python.parent / command), "--help"], tmp_path).startswith(f"usage: {command} ")
    words = [str(python.parent / "handid-calibrate"), "--images", ".", "--keypoints", "other"]
    finished = finish(words, tmp_path)
    assert finished.returncode == 2  # one line, though the code lies in somebody's .venv
    assert finished.stderr.splitlines()[-1].startswith("error: --images needs --keypoints mediapipe")
    assert "fault of the program" not in finished.stderr
