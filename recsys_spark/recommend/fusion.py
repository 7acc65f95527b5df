"""How the partners are fused: weights by user segment, factors by item segment, and how each weighs the past."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsys_spark.recommend.scoring.scores import FloatArray
from recsys_spark.segments import HISTORY_SEGMENTS, ITEM_SEGMENTS, item_codes

ALL = "all"
Weights = dict[str, float]


@dataclass(frozen=True)
class Fusion:
    """``score = sum over partners p of w(p, user segment) x f(p, item segment) x z_p``.

    Args:
        weights: of the partners, for users of a segment that has none of its own.
        segments: user segment (``segments.HISTORY_SEGMENTS``) -> weights; the same partners as in ``weights``.
        items: item segment (``segments.ITEM_SEGMENTS``) -> partner -> factor of its weight; what is not named has 1.
        decays: partner -> weight of the n-th last history item, ``decay^n``; others take ``recommend.history_decay``.
        profile: weights for users of whom only a profile text is known; None: not chosen.
        half_life_days: after which an event counts half in what is popular; None: all count alike.
    """

    weights: Weights
    segments: Mapping[str, Weights] = field(default_factory=dict)
    items: Mapping[str, Weights] = field(default_factory=dict)
    decays: Mapping[str, float] = field(default_factory=dict)
    profile: Weights | None = None
    half_life_days: float | None = None

    def document(self) -> dict[str, Any]:
        """As ``fusion.json`` and the report have it."""
        found = {"segments": {ALL: self.weights, **self.segments}, "items": dict(self.items), "decays": dict(self.decays)}
        found |= {} if self.half_life_days is None else {"half_life_days": self.half_life_days}
        return found if self.profile is None else {**found, "profile": dict(self.profile)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Fusion:
        segments = dict(document["segments"])
        weights, get = segments.pop(ALL), document.get
        return cls(weights, segments, get("items", {}), get("decays", {}), get("profile"), get("half_life_days"))

    def by_history(self) -> list[Weights]:
        """Weights in the order of ``HISTORY_SEGMENTS``."""
        return [self.segments.get(name, self.weights) for name in HISTORY_SEGMENTS]

    def weight_factors(self, num_events_N: FloatArray, head: float, tail: float) -> dict[str, FloatArray]:
        """Factors ``[N]`` of each partner that has any; ``head`` and ``tail`` are shares of events."""
        partners = sorted({name for factors in self.items.values() for name in factors})
        if not partners:
            return {}
        codes = item_codes(num_events_N, head, tail)
        table = {p: np.array([self.items.get(segment, {}).get(p, 1.0) for segment in ITEM_SEGMENTS]) for p in partners}
        return {partner: factors[codes] for partner, factors in table.items()}
