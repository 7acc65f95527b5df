"""Optimisers by name, their groups of weights, and the learning rate over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from recsys_spark.config.learning import TrainSettings

OPTIMISERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
    "adam": (torch.optim.Adam, {"fused": True}),  # one pass over the weights: a large table of vectors takes many otherwise
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
}


def build_optimiser(settings: TrainSettings, weights: Iterable[nn.Parameter], text_weights: Iterable[nn.Parameter]) -> Optimizer:
    """The optimiser over the encoder's weights and, at their own learning rate, the text model's.

    Weight decay holds matrices only: biases, norms and the temperature are left alone.
    """
    groups: list[dict[str, Any]] = []
    for members, rate in ((weights, settings.learning_rate), (text_weights, settings.text_learning_rate)):
        learning = [p for p in members if p.requires_grad]
        matrices, others = [p for p in learning if p.ndim >= 2], [p for p in learning if p.ndim < 2]
        groups.append({"params": matrices, "lr": rate, "weight_decay": settings.weight_decay})
        groups.append({"params": others, "lr": rate, "weight_decay": 0.0})
    kind, options = OPTIMISERS[settings.optimiser]
    made: Optimizer = kind([g for g in groups if g["params"]], **options)
    return made


def rate_factor(step: int, total_steps: int, warmup_share: float) -> float:
    """Share of the full learning rate at ``step`` (from 0): a straight rise, then half a cosine down to 0.

    Loshchilov & Hutter 2016 (arXiv 1608.03983), one cycle.
    """
    warmup = round(warmup_share * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    rest = max(1, total_steps - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / rest)))


def build_scheduler(optimiser: Optimizer, total_steps: Callable[[], int], warmup_share: float) -> LambdaLR:
    """A scheduler that is stepped once per optimiser step; ``total_steps`` is asked each time."""
    return LambdaLR(optimiser, lambda step: rate_factor(step, total_steps(), warmup_share))
