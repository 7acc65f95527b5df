"""The one adapter for dense products: torch (MKL) where it is installed, NumPy where it is not."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
FloatArray = npt.NDArray[Any]
_CPU_FLAGS = {"amx_bf16", "avx512_bf16"}
_ROWS_AT_ONCE = 1_024
LOWEST_BITS = np.iinfo(np.int16).min  # of bfloat16 -0.0: as an integer below every other


@functools.cache
def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def matmul(left: FloatArray, right: FloatArray) -> FloatArray:
    """``left [B, D] @ right [D, T]`` in the dtype of ``left``; both of one dtype."""
    torch = _torch()
    if torch is None or 0 in (*left.shape, *right.shape):
        return np.asarray(left @ right)
    product: FloatArray = torch.mm(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    return product


@functools.cache
def computes_in_bfloat16() -> bool:
    """Whether the processor itself multiplies bfloat16, about twice as fast as float32, and torch is there to use it."""
    cpuinfo = Path("/proc/cpuinfo")
    if _torch() is None or not cpuinfo.exists():
        return False
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    return bool(_CPU_FLAGS & set(flags.split()))


@dataclass(frozen=True)
class RoughVectors:
    """Vectors ``[N, D]`` rounded to bfloat16. Norms ``[N]`` of the rounded ones, and of what rounding took (``lost``)."""

    values: Any
    norms: Float64
    lost: Float64

    @classmethod
    def of(cls, vectors: FloatArray) -> RoughVectors:
        """From float32 ``[N, D]``."""
        values = _torch().from_numpy(vectors).bfloat16()
        norms, lost = np.empty(len(vectors)), np.empty(len(vectors))
        for begin in range(0, len(vectors), _ROWS_AT_ONCE):
            part = slice(begin, begin + _ROWS_AT_ONCE)
            rounded = values[part].double().numpy()
            norms[part] = np.linalg.norm(rounded, axis=1)
            lost[part] = np.linalg.norm(vectors[part] - rounded, axis=1)
        return cls(values, norms, lost)

    def products(self, others: RoughVectors, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Inner products ``[N, stop - start]`` with rows of ``others``: summed in float32, then rounded to bfloat16."""
        found: npt.NDArray[np.float32] = self._products(others, start, stop).float().numpy()
        return found

    def product_bits(self, others: RoughVectors, start: int, stop: int) -> npt.NDArray[np.int16]:
        """The same as the bits of bfloat16: among numbers above 0 they are in the same order, and half as many bytes."""
        torch = _torch()
        found: npt.NDArray[np.int16] = self._products(others, start, stop).view(torch.int16).numpy()
        return found

    def _products(self, others: RoughVectors, start: int, stop: int) -> Any:
        return _torch().mm(self.values, others.values[start:stop].T)


def float_of_bits(bits: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """What the bits of bfloat16 stand for."""
    return (bits.astype(np.int32) << 16).view(np.float32)


def bits_not_above(numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Bits of the largest bfloat16 that is not above each number; none may be below 0."""
    return (numbers.view(np.int32) >> 16).astype(np.int16)
