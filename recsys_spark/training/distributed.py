"""The ranks of a training: the process group, sums over it, and a gather that gradients flow back through."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore
from torch.distributed import _functional_collectives as collectives

from recsys_spark.log import get_logger

log = get_logger(__name__)
_START_SECONDS = 300  # ranks that import slowly may come this late; afterwards the shorter time-out holds


@dataclass(frozen=True)
class Ranks:
    """This process among the others. ``gather_group`` is apart from the one of the gradients, so calls never interleave."""

    rank: int
    world: int
    device: torch.device
    gradient_group: Any
    gather_group: Any

    def gather(self, mine: Tensor) -> Tensor:
        """All ranks' ``mine`` [n, ...], one after the other: [world * n, ...].

        The gradient of a rank's part is the sum of what all ranks' losses say about it (a reduce-scatter).
        """
        if self.world == 1:
            return mine
        gathered = collectives.all_gather_tensor_autograd(mine.contiguous(), 0, self.gather_group)
        arrived: Tensor = collectives.wait_tensor(gathered)  # type: ignore[no-untyped-call]
        return arrived

    def gather_uneven(self, mine: Tensor) -> Tensor:
        """``gather`` of parts [n_r, ...] whose lengths differ: [sum of n_r, ...], in the order of ranks."""
        if self.world == 1:
            return mine
        lengths: list[int] = self.gather_constant(torch.tensor([len(mine)], device=mine.device)).tolist()
        size = max(lengths)
        padded = torch.cat([mine, mine.new_zeros(size - len(mine), *mine.shape[1:])])
        whole = self.gather(padded)
        return torch.cat([whole[rank * size : rank * size + length] for rank, length in enumerate(lengths)])

    def gather_constant(self, mine: Tensor) -> Tensor:
        """``gather`` for what has no gradient: indices and weights."""
        if self.world == 1:
            return mine
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(parts, mine.contiguous(), group=self.gather_group)
        return torch.cat(parts)

    def sum(self, mine: Tensor) -> Tensor:
        """Sum over the ranks, without a gradient."""
        total = mine.detach().clone()
        if self.world > 1:
            dist.all_reduce(total, group=self.gather_group)
        return total


def device_for(gpu: bool) -> torch.device:
    """The GPU of this rank when asked for and there, else the CPU, with a warning where a GPU was asked for."""
    if gpu and not torch.cuda.is_available():
        log.warning("train.gpu is set and CUDA sees no GPU here: training on the CPU")
    elif gpu:
        local = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        return torch.device("cuda", local)
    return torch.device("cpu")


@contextmanager
def process_group(timeout_seconds: int, gpu: bool = False) -> Iterator[Ranks]:
    """Join the other ranks as torchrun's environment says; without one, be the only rank.

    A rank that is lost fails the others' next collective, at the latest after ``timeout_seconds``.
    """
    device = device_for(gpu)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    start = timedelta(seconds=max(_START_SECONDS, timeout_seconds))
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=start)
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=start)
    try:
        each = timedelta(seconds=timeout_seconds)
        groups = [dist.new_group(timeout=each) for _ in range(2)]
        yield Ranks(dist.get_rank(), dist.get_world_size(), device, *groups)
    finally:
        dist.destroy_process_group()
