"""What becomes of the fused order before it is a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from recsys_spark.config.serving import RecommendSettings
from recsys_spark.recommend.new_items import NewItems
from recsys_spark.recommend.rerank.lists import Rerank


@dataclass(frozen=True)
class Arrangement:
    """The places of new items, and how lists are put in order once more; None: neither."""

    new_items: NewItems | None = None
    rerank: Rerank | None = None

    def document(self) -> dict[str, Any]:
        parts = {"new_items": self.new_items, "rerank": self.rerank}
        return {name: None if part is None else part.document() for name, part in parts.items()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any], settings: RecommendSettings) -> Arrangement:
        """What a model version says (``fusion.json``), where the present config leaves it to validation."""
        new_items = NewItems.from_document(document.get("new_items"), settings.new_items_per_ten)
        if new_items is not None and settings.new_item_demand is not None:
            new_items = replace(new_items, demand=settings.new_item_demand)
        return cls(new_items, Rerank.of(settings.rerank, document.get("rerank")))

    @classmethod
    def without_model(cls, settings: RecommendSettings) -> Arrangement:
        """What the config alone can say: no validation has measured chances or a diversity."""
        return cls(rerank=Rerank.of(settings.rerank, None))


PLAIN = Arrangement()
