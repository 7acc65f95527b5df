"""What each part is worth on one data set: cases against the base on the same users, with paired intervals.

python -m benchmarks.quality.ablation DIR [CASE ...] [--seeds N]
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.benchmark.leave_one_out import Protocol, run_leave_one_out
from recsys_spark.benchmark.results import once
from recsys_spark.config.serving import SparkSettings
from recsys_spark.evaluate.significance import paired_bootstrap
from recsys_spark.session import build_session
from recsys_spark.tables.store import Store

CASES = Path(__file__).with_name("cases.toml")
RESULTS = Path("benchmarks/results/quality")
_K, _SAMPLES, _CONFIDENCE = 10, 2_000, 0.95
_SEGMENTS = ("all", "item_head", "item_torso", "item_tail", "item_cold")


def run_case(protocol: Protocol, name: str, sections: dict[str, Any], spark: SparkSession, work: Path) -> dict[str, Any]:
    """The row of one case; the ranks of its targets are kept beside the tables, for the comparison."""
    row = run_leave_one_out(protocol, spark, work / "warehouse", sections)
    ranks = Store(spark, str(protocol.tables(work / "warehouse"))).read("target_ranks", protocol.namespace)
    ranks = ranks.select("user_id", "item_id", F.col("rank").cast("int"))
    ranks.toPandas().to_parquet(_ranks_file(work, name, protocol.seed), index=False)
    return {**row, "case": name}


def _ranks_file(work: Path, name: str, seed: int) -> Path:
    return work / f"{_seeded(name, seed)}.parquet"


def _seeded(name: str, seed: int) -> str:
    return f"{name}-seed{seed}" if seed else name


def ndcg(ranks: pd.DataFrame) -> pd.Series:
    """NDCG@10 of each (user, target); a target that was not ranked counts 0."""
    rank = ranks.set_index(["user_id", "item_id"])["rank"].sort_index()
    found: pd.Series = (1.0 / np.log2(rank + 1.0)).where(rank <= _K, 0.0).fillna(0.0)
    return found


def differences(work: Path, name: str, seeds: int) -> list[float]:
    """Case - base: NDCG@10, each user's mean over seeds, with the ends of its paired interval over users."""
    both = pd.concat([_beside_base(work, name, seed) for seed in range(seeds)]).groupby(level=["user_id", "item_id"]).mean()
    found = paired_bootstrap(both["case"].to_numpy(), both["base"].to_numpy(), _SAMPLES, _CONFIDENCE, seed=0)
    return [found.value, found.low, found.high]


def _beside_base(work: Path, name: str, seed: int) -> pd.DataFrame:
    base, case = (ndcg(pd.read_parquet(_ranks_file(work, which, seed))) for which in ("base", name))
    return pd.concat([base, case], axis=1, keys=["base", "case"]).fillna(0.0)


def line(rows: list[dict[str, Any]], gap: list[float] | None) -> str:
    """One case: NDCG@10 of the fused lists on validation, on the test of the encoder, fused and by segment, means over seeds."""
    cells = [_mean([row["validation_ndcg"] for row in rows]), _mean([_cell(row, "encoder", "all") for row in rows])]
    cells += [_mean([_cell(row, "fused", segment) for row in rows]) for segment in _SEGMENTS]
    told = "" if gap is None else f"  {gap[0]:+.4f} [{gap[1]:+.4f}, {gap[2]:+.4f}]"
    return f"{rows[0]['case']:24}" + "".join(f"{cell:9.4f}" for cell in cells) + told


def _cell(row: dict[str, Any], system: str, segment: str) -> float | None:
    found = row["systems"].get(system, {}).get("ndcg", {}).get(segment)
    return None if found is None else float(found[0])


def _mean(values: list[float | None]) -> float:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else float("nan")


def main(argv: list[str] | None = None) -> None:
    """Run the cases that have no row yet, print all, and end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with events.parquet and perhaps items.parquet")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all of cases.toml")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1 of each case; default 1")
    parser.add_argument("--work", type=Path, default=Path("work/ablation"), help="where tables and ranks go")
    arguments = parser.parse_args(argv)
    cases = tomllib.loads(CASES.read_text(encoding="utf-8"))
    names = ["base", *(name for name in arguments.cases or cases if name != "base")]
    data, work = arguments.data, arguments.work / arguments.data.name
    work.mkdir(parents=True, exist_ok=True)
    spark, found = build_session(SparkSettings(), "recsys-spark ablation"), []
    columns = ("valid.", "encoder", "fused", "head", "torso", "tail", "cold")
    print(f"{'NDCG@10':24}" + "".join(f"{column:>9}" for column in columns) + "  fused - base")
    try:
        for name in names:
            rows = [_row(Protocol(data, seed=seed), name, cases[name], spark, work) for seed in range(arguments.seeds)]
            gap = differences(work, name, arguments.seeds) if name != "base" else None
            print(line(rows, gap), flush=True)
            found.append({"case": name, "systems": [row["systems"] for row in rows], "difference": gap})
    finally:
        spark.stop()
    print(json.dumps({"row": "ablation", "data": data.name, "seeds": arguments.seeds, "cases": found}))


def _row(protocol: Protocol, name: str, sections: dict[str, Any], spark: SparkSession, work: Path) -> dict[str, Any]:
    key = {"case": name, "settings": sections} | ({"seed": protocol.seed} if protocol.seed else {})
    prefix = _seeded(f"{protocol.data.name}-ablation-{name}", protocol.seed)
    return once(RESULTS, prefix, key, lambda: run_case(protocol, name, sections, spark, work))


if __name__ == "__main__":
    main()
