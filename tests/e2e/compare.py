"""Are two warehouses equal, as DESIGN promise 1 defines it?"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.tables.content import TOLERANCE, differing_rows
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.store import Store

RANKED = {"recommendations": ("user_id", "item_id"), "item_neighbours": ("item_id", "neighbour_id")}


def differences(table: str, namespace: str, one: Store, other: Store) -> list[str]:
    """What differs in one table; empty when equal. Ranks may be swapped between scores closer than the tolerance."""
    left, right = one.read(table, namespace), other.read(table, namespace)
    if left.count() != right.count():
        return [f"{namespace}/{table}: {left.count()} rows against {right.count()}"]
    spec = contract(table)
    if table in RANKED:
        key = (*RANKED[table], "as_of", "run_id")
        left, right = left.drop("rank"), right.drop("rank")
    else:
        key = spec.key or tuple(left.columns)
    if not spec.key:  # no key: compare as multisets
        odd = left.exceptAll(right).count()
        return [f"{namespace}/{table}: {odd} rows differ"] if odd else []
    found = differing_rows(_plain(left), _plain(right), key).limit(3).collect()
    return [f"{namespace}/{table}: {row}" for row in found]


def _plain(frame: DataFrame) -> DataFrame:
    """Reasons hold floats inside structs: round them to the tolerance so that they compare."""
    digits = len(str(round(1 / TOLERANCE))) - 2
    if "reasons" in frame.columns and "contribution" in frame.schema["reasons"].dataType.simpleString():
        rounded = F.transform(
            "reasons", lambda r: F.concat_ws("|", r["kind"], r["ref_id"], r["text"], F.round(r["contribution"], digits))
        )
        frame = frame.withColumn("reasons", F.array_sort(rounded))
    return frame
