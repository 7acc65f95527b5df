"""What was searched for: text vectors of the most frequent queries, found by the hash that a moment holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

QUERIES = "queries.safetensors"


class QueryTable(nn.Module):
    """Vectors [..., D] that are added to the items' by what was searched for when they were met.

    ``e = W t(query)`` of the text vector ``t`` of a known query; zero of any other and of none. Queries with like words so
    count alike from the first step on. Only ``W`` is learned: hashes and text vectors are no buffers, since ranks would send
    them to each other at every step; they stay on the device they come on, and lie beside the weights in a model folder.
    """

    def __init__(self, hashes: Tensor, vectors: Tensor, dimension: int) -> None:
        super().__init__()
        order = torch.argsort(hashes)
        self.project = nn.Linear(vectors.shape[1], dimension, bias=False)
        self.hashes, self.vectors = hashes[order], vectors[order]

    def forward(self, asked: Tensor) -> Tensor:
        """Vectors [..., D] of hashes int64 [...] (0: nothing was searched for)."""
        places = torch.searchsorted(self.hashes, asked).clamp(max=len(self.hashes) - 1)
        known = self.hashes[places] == asked
        found = torch.zeros(*asked.shape, self.project.out_features, dtype=self.project.weight.dtype, device=asked.device)
        made: Tensor = self.project(self.vectors[places[known]].to(found)).to(found)  # autocast makes bfloat16 of it
        return found.masked_scatter(known[..., None], made)


def save_queries(folder: Path, hashes: Tensor | NDArray[np.int64], vectors: Tensor | NDArray[np.float32]) -> None:
    """Write hashes int64 [Q], each once, and the text vectors [Q, T] of what they stand for."""
    tensors = {"hashes": torch.as_tensor(hashes, dtype=torch.int64), "vectors": torch.as_tensor(vectors, dtype=torch.float32)}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / QUERIES)


def load_queries(folder: Path, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor] | None:
    """What ``save_queries`` wrote; None where there is nothing."""
    if not (folder / QUERIES).exists():
        return None
    found = load_file(folder / QUERIES, device=str(device))
    return found["hashes"], found["vectors"]
