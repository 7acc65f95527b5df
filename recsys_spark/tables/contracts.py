"""The contracts of all tables: columns, types, nulls, keys and partitions, as constants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from pyspark.sql import DataFrame
from pyspark.sql.types import StructField, StructType, _parse_datatype_string

from recsys_spark.config.base import nearest
from recsys_spark.errors import ContractError

VERSION = 1


@dataclass(frozen=True)
class Contract:
    """One table. ``columns`` is a Spark DDL string in which ``!`` marks a column that is never null."""

    name: str
    columns: str
    key: tuple[str, ...] = ()
    other_keys: tuple[tuple[str, ...], ...] = ()
    partition: tuple[str, ...] = ()
    shared: bool = False  # outside the namespaces
    num_files: bool = False  # written as a fixed number of equal files, for Petastorm
    change_feed: bool = False  # Delta records its changes row by row, for what is kept up to date from them

    @property
    def keys(self) -> tuple[tuple[str, ...], ...]:
        return ((self.key,) if self.key else ()) + self.other_keys

    @property
    def not_null(self) -> tuple[str, ...]:
        return tuple(re.findall(r"(\w+) [^,!]*(?:<[^!]*>)?!", self.columns))

    @property
    def schema(self) -> StructType:
        """Spark schema in the contract's column order (needs an active Spark context)."""
        parsed = cast(StructType, _parse_datatype_string(self.columns.replace("!", "")))
        required = set(self.not_null)
        return StructType([StructField(f.name, f.dataType, f.name not in required) for f in parsed])


_REASONS = "reasons array<struct<kind:string,ref_id:string,text:string,contribution:double>>!"
_SEQUENCE = "user_idx int!, items array<int>!, num_items int!, weight float!, moments array<bigint>"  # null unless asked for
_OUTCOME = "user_idx int!, items array<int>!, item_idx int!, outcome int!, weight float!, moments array<bigint>"

TABLES: dict[str, Contract] = {
    c.name: c
    for c in (
        Contract(
            "events",
            "event_id string!, user_id string!, user_idx int!, item_id string!, item_idx int!, event_type string!, "
            "value double, weight float!, label tinyint!, ts timestamp!, event_pos bigint!, session_id string!, "
            "context map<string,string>, event_date date!",
            key=("event_date", "event_id"),
            partition=("event_date",),
            shared=True,
            change_feed=True,
        ),
        Contract(
            "items",
            "item_id string!, item_idx int!, title string, text string!, has_text boolean!, category string, "
            "attributes map<string,string>, available boolean!, input_sha string!, first_seen date!, updated_at timestamp",
            key=("item_id",),
            other_keys=(("item_idx",),),
            shared=True,
        ),
        Contract(
            "users",
            "user_id string!, user_idx int!, profile_text string, attributes map<string,string>",
            key=("user_id",),
            other_keys=(("user_idx",),),
            shared=True,
        ),
        Contract("forgotten", "user_sha string!, forgotten_at timestamp!", key=("user_sha",), shared=True),
        Contract(
            "knowledge_graph",
            "item_id string!, relation string!, entity_id string!",
            key=("item_id", "relation", "entity_id"),
            shared=True,
        ),
        Contract(
            "quarantine",
            "source_hash string!, row_number bigint!, table string!, row string!, reasons array<string>!, run_id string!",
            key=("source_hash", "row_number", "table"),
            shared=True,
        ),
        Contract(
            "ledger",
            "source_hash string!, table string!, name string!, settings_sha string!, rows_read bigint!, rows_kept bigint!, "
            "rows_merged bigint!, rows_known bigint!, rows_quarantined bigint!, run_id string!",
            key=("source_hash", "table"),
            shared=True,
        ),
        Contract("holdout", "event_id string!, role string!", key=("event_id",)),
        Contract(
            "cooccurrence",
            "item_a int!, item_b int!, num_baskets bigint!, num_baskets_a bigint!, num_baskets_b bigint!, "
            "num_baskets_total bigint!, decayed_count double, count double, cosine double, jaccard double, lift double, "
            "confidence double, pmi double, npmi double, llr double, tanimoto double, tfidf_cosine double, bm25_cosine double, "
            "swing double, rank_a int!",
            key=("item_a", "item_b"),
        ),
        Contract(
            "cooccurrence_deltas",
            "item_a int!, item_b array<int>!, num_baskets array<bigint>!, decayed_count array<double>, batch_id string!, "
            "reference timestamp!",
        ),
        Contract("item_weights", "item_a int!, item_b array<int>!, weight array<float>!", key=("item_a",)),
        Contract("item_transitions", "item_a int!, item_b array<int>!, weight array<float>!", key=("item_a",)),
        Contract("item_factors", "item_idx int!, vector array<float>!", key=("item_idx",)),
        Contract("robots", "user_idx int!, reasons array<string>!", key=("user_idx",)),
        Contract(
            "pairs",
            "anchor_idx int!, item_idx int!, weight float!, source string!, split string!",
            key=("anchor_idx", "item_idx", "source"),
        ),
        Contract(
            "negatives",
            "user_idx int!, item_idx int!, weight float!, source string!, split string!",
            key=("user_idx", "item_idx", "source"),
        ),
        Contract("mined_negatives", "user_idx int!, item_idx int!, rank int!, score double!", key=("user_idx", "item_idx")),
        Contract("training_pairs", "anchor_idx int!, item_idx int!, weight float!", num_files=True),
        Contract("training_sequences", _SEQUENCE, num_files=True),
        Contract("training_negatives", "user_idx int!, items array<int>!, unwanted array<int>!, weight float!", num_files=True),
        Contract("validation_sequences", _SEQUENCE, num_files=True),
        Contract("training_outcomes", _OUTCOME, num_files=True),
        Contract("validation_outcomes", _OUTCOME, num_files=True),
        Contract(
            "item_text_vectors",
            "input_sha string!, text_model string!, vector array<float>!",
            key=("input_sha", "text_model"),
            shared=True,
        ),
        Contract(
            "item_embeddings",
            "item_idx int!, item_id string!, vector array<float>!, input_sha string!, model_name string!, model_version int!",
            key=("item_idx", "model_name", "model_version"),
        ),
        Contract(
            "user_embeddings",
            "user_id string!, user_idx int!, vector array<float>!, history_sha string!, num_events int!, "
            "model_name string!, model_version int!",
            key=("user_id", "model_name", "model_version"),
        ),
        Contract(
            "recommendations",
            "user_id string!, rank int!, item_id string!, score double!, source string!, "
            f"{_REASONS}, model_version int, run_id string!, as_of timestamp!",
            key=("user_id", "rank", "as_of", "run_id"),
            other_keys=(("user_id", "item_id", "as_of", "run_id"),),
            partition=("as_of",),
        ),
        Contract(
            "fallback_recommendations",
            "context string!, rank int!, item_id string!, score double!, run_id string!, as_of timestamp!",
            key=("context", "rank", "as_of", "run_id"),
            partition=("as_of",),
        ),
        Contract(
            "shortfalls",
            "user_id string!, num_items int!, reason string!, run_id string!, as_of timestamp!",
            key=("user_id", "as_of", "run_id"),
            partition=("as_of",),
        ),
        Contract(
            "item_neighbours",
            f"item_id string!, rank int!, neighbour_id string!, score double!, {_REASONS}, run_id string!, as_of timestamp!",
            key=("item_id", "rank", "as_of", "run_id"),
            partition=("as_of",),
        ),
        Contract(
            "user_neighbours",
            "user_id string!, rank int!, neighbour_id string!, score double!, run_id string!, as_of timestamp!",
            key=("user_id", "rank", "as_of", "run_id"),
            partition=("as_of",),
        ),
        Contract(
            "target_ranks",
            "user_id string!, item_id string!, rank int!, num_candidates int!",
            key=("user_id", "item_id"),
        ),
        Contract(
            "metrics",
            "system string!, name string!, k int!, segment string!, value double!, low double, high double, "
            "num_users bigint!, model_version int, cutoff string!",
            key=("system", "name", "k", "segment"),
        ),
        Contract(
            "runs",
            "run_id string!, stage string!, fingerprint string!, inputs map<string,string>!, outputs map<string,string>!, "
            "rows map<string,bigint>!, seconds double!, status string!, as_of timestamp!, finished_at timestamp!, facts string",
        ),
        Contract(
            "published",
            "sequence bigint!, as_of timestamp!, run_id string!, model_version int, versions map<string,bigint>!, "
            "action string!, reason string!, published_at timestamp!",
            key=("sequence",),
        ),
    )
}


def contract(name: str) -> Contract:
    """The contract of table ``name``.

    Raises:
        ContractError: no such table.
    """
    if name not in TABLES:
        raise ContractError(f"table '{name}'", "no contract", do=nearest(name, list(TABLES)))
    return TABLES[name]


def conform(frame: DataFrame, spec: Contract) -> DataFrame:
    """``frame`` with exactly the contract's columns, in its order.

    Raises:
        ContractError: a column is absent, unknown, or of another type; nothing is cast silently.
    """
    where = f"table '{spec.name}'"
    wanted = {f.name: f.dataType.simpleString() for f in spec.schema}
    found = {f.name: f.dataType.simpleString() for f in frame.schema}
    for name, kind in wanted.items():
        if name not in found:
            raise ContractError(where, f"column {name} is absent", kind)
        if found[name] != kind:
            raise ContractError(where, f"{name} is {found[name]}", f"contract says {kind}")
    for name in found:
        if name not in wanted:
            raise ContractError(where, f"column {name} is not in the contract", do=nearest(name, list(wanted)))
    return frame.select(*wanted)


def describe() -> str:
    """All contracts as text, for ``recsys-spark contracts``."""
    lines = [f"contracts version {VERSION}"]
    for spec in TABLES.values():
        place = "shared" if spec.shared else "per namespace"
        lines.append(f"\n{spec.name} ({place}; key {', '.join(spec.key) or '-'}; partition {', '.join(spec.partition) or '-'})")
        lines += [f"  {part.strip()}" for part in re.split(r",(?![^<]*>)", spec.columns)]
    return "\n".join(lines)
