"""Ship a run's weights: half precision, with what made them, and a line in ``weights/weights.json``.

``python -m src.engine.ship --run out/dex_ycb/mano_identity --name mano_identity``
"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from datasets.bad_files import read_json
from options.command_line import CommandParser, run_command
from src.engine.checkpoint import CheckpointError, read_checkpoint
from src.engine.run_folder import CODE, RunFolder, records
from utils.files import atomic_path, write_json
from utils.low_bits import SCALE, is_packed, pack
from utils.torch_files import INDEX

logger = logging.getLogger(__name__)


def ship(run: str | Path, name: str, weights: str | Path = CODE / "weights", bits: int | None = None) -> Path:
    """Write ``weights/<name>.safetensors`` from a finished run, enter it in the index, and give its path.

    Args:
        run: the run's folder, with ``args.json``, ``log.csv`` and ``checkpoints/last.pt``.
        weights: folder of the shipped files; bits: of a weight, None: half precision.

    Raises:
        FileNotFoundError: the run lacks one of its files.
        ValueError: its last state is in the middle of an epoch.
    """
    run, output, index = Path(run), Path(weights) / f"{name}.safetensors", Path(weights) / INDEX
    if name != Path(name).name:
        raise ValueError(f"--name is {name!r}; it is one file's name in --weights, without a path")
    notes, entries = history(run), read_json(index, can_skip=False) if index.is_file() else {}
    position = read_checkpoint(run / "checkpoints" / "last.pt").get("position", {})
    if position.get("batch"):
        raise ValueError(
            f"{run}: its last state is within epoch {position['epoch'] + 1}, so its scores are of other weights; let "
            "the epoch end (run.py --phase train --resume)"
        )
    export_weights(run / "checkpoints" / "last.pt", output, bits, **notes)
    content = output.read_bytes()
    entries[output.name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **notes}
    write_json(index, dict(sorted(entries.items())))
    logger.info("%s: %.1f MB, validation %s", output, len(content) / 1e6, notes["validation"])
    return output


def export_weights(
    checkpoint: str | Path, output: str | Path, bits: int | None = None, module: str = "", **notes: Any
) -> None:
    """Write a checkpoint's weights in half precision as ``.safetensors``, card and ``notes`` in the metadata.

    With ``bits`` large tensors (of a ``module``) are stored in so many bits a weight (`low_bits`).

    Tensors that half precision cannot hold (beyond 65504, or all below 6e-8) stay in single precision and are named
    in the log.

    Args:
        checkpoint: training state, or a shipped file.
        notes: what made it (command, git revision, data seed, scores); must be JSON.

    Raises:
        CheckpointError: a weight is not finite.
    """
    state = read_checkpoint(checkpoint)
    tensors, kept, packed = {}, [], {}
    for name, value in state["model"].items():
        if not value.is_floating_point():
            tensors[name] = value.contiguous()
            continue
        if not value.isfinite().all():
            raise CheckpointError(f"{checkpoint}: {name} holds numbers that are not finite; ship an earlier state")
        if bits is not None and is_packed(value) and name.startswith(module):
            tensors[name], tensors[name + SCALE] = pack(value, bits)
            packed[name] = [list(value.shape), bits]
            continue
        half, largest = value.half(), value.abs().max() if value.numel() else value.new_zeros(())
        fits = (half.float() - value).abs().max() <= 1e-3 * largest if value.numel() else True
        kept += [] if fits else [name]
        tensors[name] = (half if fits else value).contiguous()
    if kept:
        logger.warning("%s: half precision cannot hold %s; kept in single precision", output, ", ".join(kept))
    metadata = {"notes": json.dumps({"card": state["card"], **notes})}
    if packed:
        metadata["packed"] = json.dumps(packed)
    with atomic_path(output) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def history(run: Path) -> dict[str, Any]:
    """How a run's network came to be: command, versions, seed, data and validation scores.

    ``resumed`` lists resumes with other settings, versions or devices than before: command, place, and ``changed``
    settings as they were and became. ``started_from`` is the history of the run that it began from, if that is still
    there.

    Raises:
        FileNotFoundError: the run lacks ``args.json`` or ``log.csv``.
    """
    if not (run / "args.json").is_file():
        raise FileNotFoundError(f"{run / 'args.json'}: no such file; is {run} the folder of a training?")
    arguments, *later = records(run)
    data = Path(arguments["args"]["data_root"])
    description = data / "synthetic.json"  # of the writer of synthetic data
    if not (epochs := RunFolder(run).epochs()):
        raise FileNotFoundError(f"{run / 'log.csv'}: no epoch is logged there; let one end before shipping")
    notes: dict[str, Any] = {
        "command": shlex.join(["python", *arguments["command"]]),
        "computed_on": arguments.get("computed_on", "CPU"),
        "versions": arguments["versions"],
        "seed": arguments["args"]["seed"],
        "data": json.loads(description.read_text(encoding="utf-8")) if description.is_file() else data.name,
        "validation": {name[4:]: round(float(value), 4) for name, value in epochs[-1].items() if name[:4] == "val_"},
    }
    if later:
        keys = ("computed_on", "versions", "resumed", "changed")
        notes["resumed"] = [
            {"command": shlex.join(["python", *record["command"]])}
            | {key: record[key] for key in keys if key in record}
            for record in later
        ]
    start = arguments.get("resumed", {}).get("from") or arguments["args"].get("init_from")
    if start and ((earlier := Path(start).absolute().parents[1]) / "args.json").is_file():
        notes["started_from"] = history(earlier)
    return notes


def main() -> int:
    parser = CommandParser("Ship a run's weights in half precision.")
    parser.add_argument("--run", required=True, help="the run's folder, e.g. out/dex_ycb/mano_identity")
    parser.add_argument("--name", required=True, help="name of the file in the weights folder")
    parser.add_argument("--weights", default=CODE / "weights")
    parser.add_argument("--bits", type=int, choices=range(2, 9), help="bits a weight (default: half precision)")
    return run_command(parser, lambda args: ship(args.run, args.name, args.weights, args.bits))


if __name__ == "__main__":
    sys.exit(main())
