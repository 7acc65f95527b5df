"""Settings of what puts lists in order once more, part of ``[recommend]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recsys_spark.config.base import Settings

Similarity = Literal["encoder", "text", "attributes"]
Limit = Annotated[int, Field(ge=1, le=9)]


class RerankSettings(Settings):
    """How much lists vary, and what limits they keep."""

    # 0: by scores; 1: much. auto: as much as costs validation at most max_diversity_loss of its NDCG@10
    diversity: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = 0.0
    max_diversity_loss: float = Field(0.01, ge=0, le=1)
    similarity: Similarity = "encoder"  # of items; without a model their texts
    max_per_ten: dict[str, Limit] = {}  # { category = 4 }: of each ten places at most so many share a value of an attribute
    depth: int = Field(5, ge=1, le=50)  # times K: candidates that lists are made of
