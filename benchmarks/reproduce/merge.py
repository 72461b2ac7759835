"""A run's own table put among the ones that are there: the others stay, number for number."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.reproduce.report import GROUPS, Rows, flat_rows, per_subject, table
from benchmarks.reproduce.sizes import ROWS, Size
from utils.files import write_json, write_text

#: The table's last part, in front of which others are put.
TARGETS = "## Targets"
LEAST_GAIN = 12  # percent, of METRO that is told the person's shape


def identity_gain(rows: Rows, group: str) -> float:
    """By how many percent ``metro_identity``, told the true shape, errs less than ``metro`` (MPJPE)."""
    told, anonymous = (
        per_subject(rows, next(r for r in ROWS if (r.group, r.model, r.shape) == (group, *names)), "mpjpe_mm").mean()
        for names in (("metro_identity", "true"), ("metro", "none"))
    )
    return float(100 * (1 - told / anonymous))


def section(size: Size, rows: Rows, facts: dict[str, Any], group: str) -> str:
    """The part of the page about one group, with how it was made."""
    gain = identity_gain(rows, group)
    return "\n".join(
        [
            f"## {GROUPS[group]}",
            "",
            f"Made later than the other tables, by `{facts['command']}` on {facts['machine']}, with the same people "
            "and images. The bodies of the whole trainings above are not in git, so all networks here go on from the "
            f"first seed's, which ships (`{size.body}`); the seeds are those of the continuations. Compare within "
            f"this table. Lengths: METRO {size.budgets['metro']}, and as many again: `metro` goes on without a shape, "
            "`metro_identity` starts from that same network and is told the shape. "
            f"CMR {size.budgets['quick mesh']}, each network from the body. "
            "All with the same rates, which were chosen on people of the training set; CMR's are not those of above. "
            f"{facts['training_hours']} hours of trainings added up, two at a time on a busy machine.",
            "",
            table(rows, group),
            "",
            f"Wanted: `metro_identity` with the true shape {LEAST_GAIN}% below `metro`; found {gain:.1f}%: "
            f"{'reached' if gain >= LEAST_GAIN else 'not reached'}.",
        ]
    )


def replace_section(page: str, text: str) -> str:
    """A page whose section of the same heading is ``text``; a new one stands before the targets, or at the end."""
    heading = text.partition("\n")[0]
    place = re.search(rf"^{re.escape(heading)}$.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if place is None:
        start = page.find(f"\n{TARGETS}\n") + 1 or len(page)
        return page[:start] + text + "\n\n" + page[start:]
    return page[: place.start()] + text + "\n\n" + page[place.end() :]


def merge(folder: Path, size: Size, rows: Rows, facts: dict[str, Any]) -> None:
    """Add the run to ``results.json`` and ``results.md`` of a folder.

    Args:
        folder: with both files.
        size: the run; its groups are those replaced.
        rows: of `Scores.all_rows`, of all seeds.
        facts: ``command``, ``machine``, ``training_hours``.

    Raises:
        FileNotFoundError: there is no table yet.
    """
    path, page = folder / "results.json", folder / "results.md"
    found, text = json.loads(path.read_text(encoding="utf-8")), page.read_text(encoding="utf-8")
    others = [row for row in found["rows"] if row["group"] not in size.groups]
    added = found.get("added", {}) | {size.name: {**facts, "seeds": size.seeds}}
    for group in size.groups:
        text = replace_section(text, section(size, rows, facts, group))
    write_json(path, {**found, "rows": [*others, *flat_rows(rows)], "added": added})
    write_text(page, text)
