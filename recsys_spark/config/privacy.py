"""Settings of training with differential privacy, and what of ``[train]`` goes together with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from recsys_spark.config.base import Settings

# what looks at other users' events, or at how often something happened, and so is not bounded by one user's gradient
ONLY_VALUES: dict[str, tuple[Any, ...]] = {
    "loss": ("softmax", "sampled_softmax"),
    "similarity": ("dot",),
    "negatives": ("auto", "catalogue", "uniform"),
    "item_item_share": (0.0,),
    "explicit_share": (0.0,),
    "outcome_share": (0.0,),
    "profile_share": (0.0,),
    "loss_weights": ("fixed",),
    "learn_temperature": (False,),
    "matryoshka_dims": ([],),
    "queue_size": (0,),
    "mask_known_pairs": ("off",),
    "mask_guide": ("off",),
    "cache_chunk_size": (None,),
    "precision": ("auto", "float32"),
    "calibrate": (False,),
}
ONLY_VALUES_OF_ENCODER: dict[str, tuple[Any, ...]] = {"text_training": ("frozen",), "item_gate": ("sum",), "query_key": (None,)}
_DEFAULTS = {"item_item_share": 0.0, "calibrate": False}  # where nothing is said; other defaults are fine as they are


class PrivacySettings(Settings):
    """``[train.privacy]``: how little the encoder may tell of any one user (DP-SGD, Abadi et al. 2016), all of whose events
    count as one."""

    epsilon: float = Field(gt=0, le=100)  # the smaller, the less a model tells: below 1 strong, above 10 weak
    delta: float | None = Field(None, gt=0, lt=1)  # chance that epsilon does not hold; None: a tenth of 1 / users
    users_per_step: int = Field(1_024, ge=1)  # on average, over all ranks: each user is drawn with the same chance
    clip_norm: float = Field(1.0, gt=0)  # what one user's gradient is shortened to


def with_privacy(data: Any) -> Any:
    """``[train]`` as written, with the defaults that privacy needs where nothing is said."""
    if isinstance(data, dict) and data.get("privacy") is not None:
        return _DEFAULTS | data
    return data


def contradiction(train: Any) -> str | None:
    """What of ``[train]`` privacy rules out, and what to write instead; None: nothing."""
    for name, instead, found in _others(train, ONLY_VALUES):
        return f"{name} = {found!r} is not for privacy: its gradient is not one user's alone; write {instead}"
    return None


def contradiction_of_encoder(encoder: Any) -> str | None:
    """What of ``[encoder]`` privacy rules out, and what to write instead; None: nothing."""
    for name, instead, _ in _others(encoder, ONLY_VALUES_OF_ENCODER):
        return f"train.privacy needs encoder.{name} = {instead}: else it tells more than gradients"
    return None


def _others(settings: Any, only: dict[str, tuple[Any, ...]]) -> Iterator[tuple[str, str, Any]]:
    """Name, what it may be, and what it is, of each that is something else."""
    for name, allowed in only.items():
        value = getattr(settings, name)
        if value not in allowed:
            yield name, " or ".join(repr(v) for v in allowed), value
