"""What a benchmark says about where it ran, and how it sums up times."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

#: ``cpu`` is the processor's time: on a busy machine, with one thread, it says what an idle core would take.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def describe_machine(device: str = "cpu") -> str:
    """Processor (and GPU if that is what computes), threads in use, version of torch."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    gpu = f"{torch.cuda.get_device_name()}, " if device == "cuda" else ""
    return f"{gpu}{name or 'CPU'}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def median_and_p95(milliseconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile, ms."""
    median, high = np.percentile(milliseconds, [50, 95])
    return {"median_ms": round(float(median), 3), "p95_ms": round(float(high), 3)}


def peak_growth(run: Callable[[], object]) -> float:
    """MB that ``run`` adds to the resident set of this process at its peak (Linux).

    Memory that was freed before and is still held counts as there: measure in a process of its own.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _peak_resident_kilobytes()
    run()
    return (_peak_resident_kilobytes() - before) / 1024


def _peak_resident_kilobytes() -> int:
    # Not getrusage: its maximum is inherited from the parent process.
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
