"""Build hook: the checkout's folders go into the wheel under one package, so that nobody's `utils` is shadowed.

``pip wheel . --no-deps -w DIR``. In the checkout the code says ``from utils.camera import ...``; in the wheel it says
``from handid.utils.camera import ...``. The change is made on the syntax tree: imports, strings that are the name of
one of our modules, and what messages tell a reader to type. Comments and all else stay as they are, byte for byte.
"""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "handid"
FOLDERS = ("conv", "datasets", "options", "src", "template", "utils")
COMMANDS = {"run": "handid", "calibrate_from_shape_params": "handid-calibrate", "optimization_dex_ycb": "handid-fit"}
TOP = (*FOLDERS, *COMMANDS)
DATA = {".css", ".js", ".json", ".npz", ".safetensors"}
_TOP = "|".join(TOP)
#: What a message says of the checkout, and what it says in the wheel.
WORDS = (
    (re.compile(rf"(?<=-m )(?=(?:{_TOP})\b)"), f"{PACKAGE}."),
    (re.compile(r"-r requirements-(\w+)\.txt"), rf"{PACKAGE}[\1]"),
    *((re.compile(rf"(?:python )?(?<![\w/.]){name}\.py\b"), command) for name, command in COMMANDS.items()),
)


def rewritten(source: bytes, name: str, root: Path) -> bytes:
    """``source`` with every reference to our top-level names put below `PACKAGE`.

    Args:
        source: Python, UTF-8, of the file ``name``.
        root: the checkout; tells which dotted names are modules.

    Raises:
        ValueError: ``import src.a`` without ``as``: it binds a name that will not exist; names file and line.
    """
    tree = ast.parse(source, name)
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + column

    edits: list[tuple[int, int, bytes]] = []
    for node in _without_parts_of_strings(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _is_ours(node.module):
            begin = offset(node.lineno, node.col_offset)
            begin += len(re.match(rb"from\s+", source[begin:])[0])
            edits.append((begin, begin, f"{PACKAGE}.".encode()))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if not _is_ours(alias.name):
                    continue
                if alias.asname is None:
                    raise ValueError(f"{name}:{node.lineno}: import {alias.name}: write from ... import, or add 'as'")
                begin = offset(alias.lineno, alias.col_offset)
                edits.append((begin, begin, f"{PACKAGE}.".encode()))
        elif isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            begin, end = offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)
            before = source[begin:end].decode()
            value = getattr(node, "value", None)  # what it means; None for an f-string
            path = root.joinpath(*value.split(".")) if value is not None and "." in value and _is_ours(value) else None
            if path and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()):  # a module's name
                after = before.replace(value, f"{PACKAGE}.{value}")
            else:
                after = before
                for pattern, replacement in WORDS:
                    after = pattern.sub(replacement, after)
            if after != before:
                edits.append((begin, end, after.encode()))
    for begin, end, text in sorted(edits, reverse=True):
        source = source[:begin] + text + source[end:]
    ast.parse(source, name)
    return source


def _is_ours(module: str | None) -> bool:
    return module is not None and module.split(".")[0] in TOP


def _without_parts_of_strings(node: ast.AST) -> Iterator[ast.AST]:
    """Every node of the tree, an f-string as a whole: the positions of its parts are not reliable before 3.12."""
    yield node
    if not isinstance(node, ast.JoinedStr):
        for child in ast.iter_child_nodes(node):
            yield from _without_parts_of_strings(child)


def shipped_files(root: Path) -> Iterator[Path]:
    """Files of the wheel, relative to ``root``: code and its data; never a MANO file in ``template``."""
    for folder in (*FOLDERS, "weights", PACKAGE):
        for path in sorted((root / folder).rglob("*")):
            is_kept = path.suffix in DATA | {".py"} or path.name == "py.typed"
            is_licensed = folder == "template" and path.name.upper().startswith("MANO_")
            if path.is_file() and is_kept and not is_licensed and path.name[0] != ".":
                yield path.relative_to(root)
    yield from (Path(f"{name}.py") for name in COMMANDS)


def write_package(root: Path, target: Path) -> None:
    """Write the package as the wheel holds it into the folder ``target``."""
    for path in shipped_files(root):
        copy = target / (path.relative_to(PACKAGE) if path.parts[0] == PACKAGE else path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".py":
            copy.write_bytes(rewritten((root / path).read_bytes(), str(path), root))
        else:
            shutil.copyfile(root / path, copy)


class OnePackage(BuildHookInterface):
    """Gives hatchling the rewritten folders. An editable install keeps the checkout as it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self.folder = tempfile.TemporaryDirectory()
        write_package(Path(self.root), Path(self.folder.name))
        build_data["force_include"][self.folder.name] = PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self.folder.cleanup()
