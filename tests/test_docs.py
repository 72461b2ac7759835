"""README and docs: links resolve, and the tables that are facts agree with the code."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from src.photos.result import Result
from template import load_hand_assets
from utils.artifacts import META_FIELDS, ROW_ARRAYS
from utils.identity import Identity
from utils.joints import MANO_TO_STANDARD, STANDARD_TO_MANO, TIP_VERTICES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "benchmarks" / "README.md"]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists() and linked.is_relative_to(ROOT), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_and_modules_that_are_named_exist(page: Path) -> None:
    # Without the column that names commands of the released code.
    before, heading, after = page.read_text().partition("## Coming from the released code")
    text = before + heading + re.sub(r"^\| `[^|]*\|", "|", after, flags=re.MULTILINE)
    folders = "benchmarks|conv|datasets|examples|options|scripts|src|template|tests|utils"
    for name in re.findall(rf"(?<![\w/])(?:\./)?((?:{folders})/[\w/.]*\w)", text.replace("/NAME/", "/")):
        assert (ROOT / name).exists() or list(ROOT.glob(f"{name}*")), f"{page.name}: {name}"
    for name in re.findall(r"python -m ((?:src|datasets|template|benchmarks|conv)[\w.]*)", text):
        path = ROOT.joinpath(*name.rstrip(".").split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"{page.name}: {name}"


def test_the_readmes_python_is_the_first_example() -> None:
    example = (ROOT / "examples/01_calibrate_and_estimate.py").read_text()
    shown = example.split("# README: from here\n")[1].split("# README: to here")[0].strip()
    assert f"```python\n{shown}\n```" in (ROOT / "README.md").read_text()


def test_joint_orders_of_the_conventions_page() -> None:
    lists = [
        tuple(ast.literal_eval(text))
        for text in re.findall(r"`(\[\d[\d, ]+\])`", (ROOT / "docs/conventions.md").read_text())
    ]
    webxr = tuple(joint for joint in range(25) if joint not in (5, 10, 15, 20))  # the metacarpals of four fingers
    assert lists == [MANO_TO_STANDARD, STANDARD_TO_MANO, webxr]


def test_tip_vertices_of_the_facts_page() -> None:
    rows = re.findall(r"\| ((?:\d{3}, ){4}\d{3})", (ROOT / "docs/facts.md").read_text())
    assert {tuple(map(int, row.split(", "))) for row in rows} == set(TIP_VERTICES.values())


def test_code_cites_sections_that_exist() -> None:
    sections = set(re.findall(r"^#+ (\d(?:\.\d+)?) ", (ROOT / "docs/facts.md").read_text(), re.MULTILINE))
    sections |= {f"8.{number}" for number in range(1, 18)}
    for folder in ("conv", "datasets", "options", "src", "template", "utils", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for cited in re.findall(r"facts\.md ((?:\d(?:\.\d+)?(?:, | and | to )?)+)", path.read_text()):
                assert set(re.findall(r"\d(?:\.\d+)?", cited)) <= sections, f"{path}: facts {cited}"


def test_no_file_is_named_that_a_cloner_does_not_have() -> None:
    pattern = re.compile(r"\b(?:FACTS|ARCHITECTURES|REVIEW|DESIGN|ESTIMATORS)(?:\.md\b| \d)|shared/(?:reference|tools)")
    for path in ROOT.rglob("*"):
        first = path.relative_to(ROOT).parts[0]
        if path.suffix not in (".py", ".md", ".sh", ".toml", ".txt") or first in (".venv", "out", "data", "weights"):
            continue
        found = pattern.search(path.read_text())
        assert path == Path(__file__) or found is None, f"{path.relative_to(ROOT)}: {found[0]}"


def test_formats_page_names_every_key() -> None:
    """And none that does not exist."""
    _, identity, predictions, hand, *_ = re.split(r"^## ", (ROOT / "docs/formats.md").read_text(), flags=re.MULTILINE)

    def keys(section: str) -> set[str]:
        rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        return {key for row in rows for key in re.findall(r"`(\w+)`", row)}

    assert keys(predictions) == set(ROW_ARRAYS)
    assert all(f"`{name}`" in predictions for name in META_FIELDS)
    person = Identity(np.zeros(10), "a", "b", 180.0)
    saved = {field.name for field in dataclasses.fields(person)} - {"hand_name", "hand_hash", "source"}
    assert keys(identity) == saved - {"landmarks"} | {"landmarks_mm", "schema", "hand_model"}
    points, assets = np.zeros((21, 3)), load_hand_assets(ROOT / "template/stand_in.npz")
    result = Result(9, np.eye(3), np.zeros(3), points[:, :2], points[:, 0], assets.v_template, points, assets, 0.0)
    assert keys(hand) == set(result.record())
