"""The one adapter for dense products: torch (MKL) where it is installed, NumPy where it is not."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[Any]


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
