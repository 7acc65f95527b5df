"""Settings of the search for neighbours in large catalogues, and among many users."""

from __future__ import annotations

from pydantic import Field, model_validator

from recsys_spark.config.base import Settings


class SearchSettings(Settings):
    """When to search approximately, how good that has to be, and how the items are split."""

    exact_below: int = Field(200_000, ge=0)  # with fewer items (or users), each is compared with each
    short_list: int = Field(5, ge=1)  # times K: candidates that each partner proposes and all partners score
    recall_target: float = Field(0.98, gt=0, le=1)  # the search effort is raised until half of the sample reaches it
    recall_floor: float = Field(0.95, ge=0, le=1)  # below it, on the other half or in the final lists, all is exact
    sample_queries: int = Field(400, ge=2)  # queries that recall is measured on, in every run
    max_effort: int | None = Field(None, ge=1)  # lists read per query at most; None: as many as there are
    items_per_shard: int = Field(500_000, ge=1)  # items of one index file
    lists: int | None = Field(None, ge=1)  # clusters of an index; None: by the rule of search.approximate.plan
    query_block: int = Field(512, ge=1, le=65_535)  # queries scored together

    @model_validator(mode="after")
    def _floor_below_target(self) -> SearchSettings:
        if self.recall_floor > self.recall_target:
            raise ValueError("recall_floor must be at most recall_target")
        return self
