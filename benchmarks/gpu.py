"""What a GPU did while something was timed; on a CPU there is nothing to see."""

from __future__ import annotations

import statistics
import threading
from typing import Any

import torch

_SAMPLE_SECONDS = 0.05


def settle(device: torch.device) -> None:
    """Wait for what the GPU was told to do: it is told long before it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Watch:
    """While the block is open: the share of time in which the GPU was busy (as its driver says) and the memory held.

    A share is of time with any work at all; it does not say that the work filled the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._shares = device, list[float]()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._thread = threading.Thread(target=self._sample, daemon=True, name="gpu-watch")
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def figures(self, side: str) -> dict[str, Any]:
        """``<side>_gpu_busy_percent`` (median; None where the driver does not say) and ``<side>_gpu_peak_mib``."""
        if self._device.type != "cuda":
            return {}
        busy = round(statistics.median(self._shares)) if self._shares else None
        peak = round(torch.cuda.max_memory_allocated(self._device) / 2**20)
        return {f"{side}_gpu_busy_percent": busy, f"{side}_gpu_peak_mib": peak}

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            try:
                self._shares.append(torch.cuda.utilization(self._device))
            except (ModuleNotFoundError, RuntimeError):  # no nvidia-ml-py, or a driver that tells nothing
                return
