"""How fast the hand layer is: full mesh, joints only, and smplx (optional, from PyPI) on the same assets.

Every case is run in turns with the others, and a ratio is one of medians, so that other work on the
machine disturbs all alike. All get the same rotation matrices, betas, translations and cotangents,
and must agree to 5e-6 m before anything is timed. ``*_axis_angle`` starts from axis-angles instead; ``product`` is one
plain matrix product of as many operations as the layer's forward pass has.

    python benchmarks/hand_layer_speed.py --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import CLOCKS, describe_machine, peak_growth  # noqa: E402
from benchmarks.scenes.reference_hand import smplx_layer  # noqa: E402
from template import HandAssets, HandModel, axis_angle_to_pose, load_hand_assets  # noqa: E402

Layer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

#: What is wanted on an idle machine of two cores: ratio name -> at least.
TARGETS = {
    "smplx_over_mesh_forward_1024": 4.0,
    "smplx_over_mesh_forward_backward_1024": 4.5,
    "smplx_over_mesh_forward_backward_1": 2.0,
    "product_over_mesh_forward_1024": 1 / 1.7,
    "mesh_over_joints_only_forward_backward_256": 5.0,
}
#: Columns of a matrix product (B,145) @ (145,n) with as many operations as posing B hands: blend shapes 145 * 2334, and
#: 16 joints' transforms blended at 778 vertices, 12 * 16 * 778.
PRODUCT_COLUMNS = (145 * 2334 + 12 * 16 * 778) // 145
#: Not the vertices of a hand, and not compared as such.
OTHER_RESULTS = ("joints_only", "product")
#: (slower, faster) pairs whose ratio is printed at every batch size.
PAIRS = (
    ("smplx", "mesh"),
    ("smplx_axis_angle", "mesh_axis_angle"),
    ("plain", "mesh"),
    ("mesh", "joints_only"),
    ("product", "mesh"),
)


def make_layers(assets: HandAssets, device: str) -> dict[str, Layer]:
    """Functions of (pose (B, 16, 3, 3) or axis-angle (B, 48), betas, transl) -> vertices or joints, metres."""
    mesh, plain = HandModel(assets).to(device), HandModel(assets, plain=True).to(device)
    factors, columns = torch.randn(4096, 145, device=device), torch.randn(145, PRODUCT_COLUMNS, device=device)
    layers: dict[str, Layer] = {
        "mesh": lambda pose, betas, transl: mesh(pose, betas, transl).vertices,
        "plain": lambda pose, betas, transl: plain(pose, betas, transl).vertices,
        "joints_only": mesh.joints,
        "product": lambda pose, betas, transl: torch.mm(factors[: len(betas)], columns),
        "mesh_axis_angle": lambda axis_angle, betas, transl: (
            mesh(axis_angle_to_pose(axis_angle), betas, transl).vertices
        ),
    }
    try:
        by_matrix = smplx_layer(assets, "MANOLayer").to(device)
        by_axis_angle = smplx_layer(assets, "MANO", create_transl=False).to(device)
    except ImportError:
        return layers
    layers["smplx"] = lambda pose, betas, transl: (
        by_matrix(betas=betas, global_orient=pose[:, :1], hand_pose=pose[:, 1:], transl=transl).vertices
    )
    layers["smplx_axis_angle"] = lambda axis_angle, betas, transl: (
        by_axis_angle(betas=betas, global_orient=axis_angle[:, :3], hand_pose=axis_angle[:, 3:], transl=transl).vertices
    )
    return layers


def make_case(batch: int, device: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded input of one batch size, and the cotangents of vertices and joints."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "axis_angle": (batch, 48),
        "betas": (batch, 10),
        "transl": (batch, 3),
        "on_vertices": (batch, 778, 3),
        "on_joints": (batch, 21, 3),
    }
    case = {name: torch.randn(shape, generator=generator).to(device) for name, shape in shapes.items()}
    case["pose"] = axis_angle_to_pose(case["axis_angle"].mul_(0.4))
    return case


def run_once(
    layer: Layer,
    name: str,
    case: dict[str, torch.Tensor],
    backward: bool,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds of one forward, or of one forward and backward to pose, betas and translation."""
    pose = case["axis_angle" if name.endswith("axis_angle") else "pose"]
    arguments = [value.detach().requires_grad_(backward) for value in (pose, case["betas"], case["transl"])]
    cotangent = case["on_joints" if name == "joints_only" else "on_vertices"]
    wait = torch.cuda.synchronize if pose.is_cuda else lambda: None
    wait()
    start = clock()
    with torch.set_grad_enabled(backward):
        output = layer(*arguments)
        if backward:
            output.backward(cotangent)
    wait()
    return clock() - start


def check_agreement(layers: dict[str, Layer], case: dict[str, torch.Tensor]) -> None:
    """Raises RuntimeError if two of the layers do not give the same vertices."""
    with torch.no_grad():
        vertices = {
            name: layer(case["axis_angle" if name.endswith("axis_angle") else "pose"], case["betas"], case["transl"])
            for name, layer in layers.items()
            if name not in OTHER_RESULTS
        }
    for name, value in vertices.items():
        difference = float((value - vertices["mesh"]).abs().max())
        if difference > 5e-6:
            raise RuntimeError(f"{name} differs by {difference} m from mesh; their times mean nothing")


def measure(
    layers: dict[str, Layer], batch: int, device: str, seconds: float, clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """Rows of one batch size: median and lower quartile, ms, of interleaved runs that take ``seconds`` in all."""
    case, rows = make_case(batch, device), []
    check_agreement(layers, case)
    for path, backward in (("forward", False), ("forward_backward", True)):
        if backward:
            layers = {name: layer for name, layer in layers.items() if name != "product"}
        for _ in range(3):
            once = sum(run_once(layer, name, case, backward, clock) for name, layer in layers.items())
        repeats = max(7, min(2000, int(seconds / once)))
        times: dict[str, list[float]] = {name: [] for name in layers}
        for _ in range(repeats):
            for name, layer in layers.items():
                times[name].append(1000 * run_once(layer, name, case, backward, clock))
        rows += [
            {
                "solver": name,
                "path": path,
                "batch": batch,
                "ms": statistics.median(values),
                "ms_lower_quartile": statistics.quantiles(values, n=4)[0],
                "repeats": repeats,
            }
            for name, values in times.items()
        ]
    return rows


def peak_megabytes(name: str, batch: int, mano_dir: str | None) -> float:
    """MB that forward and backward add to the resident set of a process of their own (CPU)."""
    command = [sys.executable, __file__, "--peak_of", name, "--batches", str(batch)]
    command += ["--mano_dir", mano_dir] if mano_dir else []
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256, 1024])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each batch size and path (default 4)")
    parser.add_argument("--threads", type=int, help="CPU threads; default as torch chooses")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: of one thread, on a busy machine")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mano_dir", help="MANO's folder or file; default as load_hand_assets finds")
    parser.add_argument("--peak_of", help=argparse.SUPPRESS)
    return parser


def main(args: argparse.Namespace) -> None:
    assets = load_hand_assets(args.mano_dir)
    if args.peak_of:
        layer = make_layers(assets, "cpu")[args.peak_of]
        run_once(layer, args.peak_of, make_case(1, "cpu"), backward=True)
        case = make_case(args.batches[0], "cpu")
        print(peak_growth(lambda: run_once(layer, args.peak_of, case, backward=True)))
        return
    if args.clock == "cpu":
        args.threads = 1
    if args.threads:
        torch.set_num_threads(args.threads)
    clock = CLOCKS[args.clock]
    layers = make_layers(assets, args.device)
    rows = [row for batch in args.batches for row in measure(layers, batch, args.device, args.seconds, clock)]
    if args.device == "cpu" and Path("/proc/self/clear_refs").exists():
        largest = max(args.batches)
        for row in rows:
            if row["batch"] == largest and row["path"] == "forward_backward":
                row["peak_megabytes"] = peak_megabytes(row["solver"], largest, args.mano_dir)
    ms = {(row["solver"], row["path"], row["batch"]): row["ms"] for row in rows}
    ratios = {
        f"{slow}_over_{fast}_{path}_{batch}": ms[slow, path, batch] / ms[fast, path, batch]
        for slow, fast in PAIRS
        for path in ("forward", "forward_backward")
        for batch in sorted(args.batches)
        if (slow, path, batch) in ms
    }
    if args.json:
        found = {"ratios": ratios, "targets": TARGETS, "rows": rows, "machine": describe_machine(args.device)}
        print(json.dumps(found | {"clock": args.clock, "hand": assets.name}, indent=1))
        return
    for row in rows:
        memory = f"  peak {row['peak_megabytes']:.0f} MB" if "peak_megabytes" in row else ""
        print(f"{row['batch']:5d} {row['path']:17s} {row['solver']:16s} {row['ms']:9.3f} ms{memory}")
    for name, ratio in ratios.items():
        print(f"{name:55s} {ratio:6.2f}" + (f"  (at least {TARGETS[name]})" if name in TARGETS else ""))


if __name__ == "__main__":
    main(get_args_parser().parse_args())
