"""How long ``run.py --phase personalise`` takes over many files, and what of it is left once they are read.

``python benchmarks/estimator_speed.py --people 1 5 --images 1000`` writes so many HaMeR-like results of simulated
people, a file a picture, shares the pictures among the people, and runs the command in one process and in two
(torchrun), each on one thread. ``after_reading_s`` is what the command logs: calibrating, fitting, their files, rows
and predictions written; ``processor_s`` the same as the leading process's processor time, which other programs on the
machine change less; ``whole_s`` begins with the interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from benchmarks.scenes.estimator_simulation import SIZE, WORLD, Estimated, estimate, write_results  # noqa: E402
from template import load_hand_assets  # noqa: E402
from template.assets import STAND_IN_PATH  # noqa: E402

ROOT, SEED = Path(__file__).resolve().parents[1], 41001
_LOGGED = re.compile(r"(\d+) hands written to .* ([\d.]+) s after reading, processor time ([\d.]+) s")


def write_files(folder: Path, result: Estimated) -> None:
    """A file a picture, and ``subjects.csv`` beside the folder."""
    lines = ["image,subject"]
    folder.mkdir(parents=True)
    for person in range(len(result.betas)):
        whole = torch.load(write_results(folder.parent / str(person), "hamer", result, person), weights_only=True)
        for row, name in enumerate(whole["image"]):
            stem = f"person-{person}_{Path(name).stem}"
            torch.save(_row(whole, row) | {"image": [f"{stem}.jpg"]}, folder / f"{stem}.pt")
            lines.append(f"{stem},{person}")
    (folder.parent / "subjects.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(content: dict, row: int) -> dict:
    return {
        key: _row(value, row) if isinstance(value, dict) else value[row : row + 1].clone()
        for key, value in content.items()
        if not isinstance(value, list)
    }


def measure(place: Path, processes: int) -> dict[str, float]:
    """Seconds of one run over ``place / "results"``."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    centre = f"{(SIZE[0] - 1) / 2},{(SIZE[1] - 1) / 2}"
    given = ["run.py", "--phase", "personalise", "--estimates", str(place / "results"), "--format", "hamer",
             "--K", f"{WORLD.focal},{WORLD.focal},{centre}", "--subjects", str(place / "subjects.csv"),
             "--mano_dir", str(STAND_IN_PATH), "--device", "cpu", "--threads", "1",
             "--output", str(place / f"out-{processes}")]  # fmt: skip
    begun, environment = time.perf_counter(), os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *start, *given], cwd=ROOT, text=True, capture_output=True, env=environment)
    found = _LOGGED.search(done.stderr)
    if done.returncode or found is None:
        raise SystemExit(done.stderr)
    after, processor = map(float, found.groups()[1:])
    return {"after_reading_s": after, "processor_s": processor, "whole_s": round(time.perf_counter() - begun, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds that personalising many files takes.")
    parser.add_argument("--people", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--images", type=int, default=1000, help="in all")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    rows = []
    for people in args.people:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            each = args.images // people
            write_files(place / "results", estimate(load_hand_assets(STAND_IN_PATH), "hamer", people, each, SEED))
            for processes in args.processes:
                count = {"people": people, "images": people * each, "processes": processes}
                rows.append(count | measure(place, processes))
                if not args.json:
                    print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if args.json:
        print(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
