"""A large batch in the memory of a small one: parts are encoded again when their gradient is wanted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_parts(encode: Callable[[Tensor], Tensor], inputs: Tensor, size: int | None) -> Tensor:
    """``encode(inputs)``, made of ``size`` rows at a time; None: of all at once.

    What GradCache (Gao et al. 2021, arXiv 2101.06983) does by hand: all rows are encoded without keeping what happens inside,
    the loss gives a gradient for each vector, and part by part is encoded again, with the random numbers it was encoded with, and
    its vectors' gradients go on from there. That is recomputation (Chen et al. 2016, arXiv 1604.06174) of each part, so it is
    left to autograd: one backward pass, in which DistributedDataParallel sees each weight's gradient once, when it is whole.
    Held are the vectors and the insides of one part. Gradients are those of encoding the same parts and keeping everything.
    """
    if size is None or len(inputs) <= size:
        return encode(inputs)
    if not torch.is_grad_enabled():
        return torch.cat([encode(part) for part in torch.split(inputs, size)])
    return torch.cat([checkpoint(encode, part, use_reentrant=False) for part in torch.split(inputs, size)])
