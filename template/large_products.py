"""Matrix products of many hands with the layer's constants: in single precision whatever surrounds them, and fast.

PyTorch's BLAS on x86 is Intel's MKL, which on AMD's processors does without the widest vectors; oneDNN, which PyTorch
carries too (`torch.Tensor.to_mkldnn`), does not, and takes half the time on them, copies of both sides included. Both
add up in float32; they differ by rounding.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

#: Rows from which oneDNN's copies are worth it.
FEWEST = 128
#: Rows of the largest product: bounds the memory of what need not be kept.
MOST = 512


def full_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """A context on ``device`` without autocast and without float32 products in TF32 or bfloat16, whatever
    ``torch.set_float32_matmul_precision`` allows: metres in half precision are millimetres off."""
    wide = contextlib.nullcontext()
    if torch.is_autocast_enabled(device.type):
        wide = torch.autocast(device.type, enabled=False)
    products = {"cpu": torch.backends.mkldnn.matmul, "cuda": torch.backends.cuda.matmul}.get(device.type)
    if torch.compiler.is_compiling() or products is None or products.fp32_precision in ("none", "ieee"):
        return wide
    return _exact_products(products, wide)


@contextlib.contextmanager
def _exact_products(products: Any, around: contextlib.AbstractContextManager) -> Iterator[None]:
    """Within ``around``, a backend's products of float32 in float32."""
    before = products.fp32_precision
    products.fp32_precision = "ieee"
    try:
        with around:
            yield
    finally:  # what comes from the setting of all backends must follow it again
        products.fp32_precision = "none" if torch.backends.fp32_precision == before else before


@functools.cache
def mkl_is_slow() -> bool:
    """Whether this process multiplies by MKL on a processor of AMD's that has 512-bit vectors (Linux)."""
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    if not both or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    info = Path("/proc/cpuinfo")
    return info.is_file() and "AuthenticAMD" in info.read_text(encoding="utf-8", errors="replace")


def large_product(left: torch.Tensor, right: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
    """``left`` (B, n) @ ``right`` (n, m), plus ``added`` (m,), without gradient; a new tensor (B, m).

    ``torch.backends.mkldnn.flags(enabled=False)`` keeps it to PyTorch's own product.
    """
    suits = type(left) is torch.Tensor and left.dtype == torch.float32 and left.device.type == "cpu"
    wanted = len(left) >= FEWEST and torch.backends.mkldnn.enabled and mkl_is_slow()
    if suits and wanted and not torch.compiler.is_compiling():
        bias = None if added is None else added.to_mkldnn()
        return torch.nn.functional.linear(left.to_mkldnn(), right.t().to_mkldnn(), bias).to_dense()
    return left @ right if added is None else torch.addmm(added, left, right)
