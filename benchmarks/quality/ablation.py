"""What each part is worth on one data set: cases against the base on the same users, with paired intervals.

python -m benchmarks.quality.ablation DIR [CASE ...]
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


def run_case(data: Path, name: str, sections: dict[str, Any], spark: SparkSession, work: Path) -> dict[str, Any]:
    """The row of one case; the ranks of its targets are kept beside the tables, for the comparison."""
    protocol = Protocol(data)
    row = run_leave_one_out(protocol, spark, work / "warehouse", sections)
    ranks = Store(spark, str(work / "warehouse")).read("target_ranks", protocol.namespace)
    ranks.select("user_id", "item_id", F.col("rank").cast("int")).toPandas().to_parquet(work / f"{name}.parquet", index=False)
    return {**row, "case": name}


def ndcg(ranks: pd.DataFrame) -> pd.Series:
    """NDCG@10 of each (user, target); a target that was not ranked counts 0."""
    rank = ranks.set_index(["user_id", "item_id"])["rank"].sort_index()
    found: pd.Series = (1.0 / np.log2(rank + 1.0)).where(rank <= _K, 0.0).fillna(0.0)
    return found


def differences(work: Path, name: str) -> list[float]:
    """Case - base: NDCG@10 with the ends of its paired interval over users."""
    base, case = (ndcg(pd.read_parquet(work / f"{which}.parquet")) for which in ("base", name))
    both = pd.concat([base, case], axis=1, keys=["base", "case"]).fillna(0.0)
    found = paired_bootstrap(both["case"].to_numpy(), both["base"].to_numpy(), _SAMPLES, _CONFIDENCE, seed=0)
    return [found.value, found.low, found.high]


def line(row: dict[str, Any], gap: list[float] | None) -> str:
    """One case: NDCG@10 of the encoder, of the fused lists and by segment, and the difference."""
    systems = row["systems"]
    fused = systems["fused"]["ndcg"]
    cells = [systems["encoder"]["ndcg"]["all"][0] if "encoder" in systems else float("nan")]
    cells += [fused[segment][0] if segment in fused else float("nan") for segment in _SEGMENTS]
    told = "" if gap is None else f"  {gap[0]:+.4f} [{gap[1]:+.4f}, {gap[2]:+.4f}]"
    return f"{row['case']:24}" + "".join(f"{cell:9.4f}" for cell in cells) + told


def main(argv: list[str] | None = None) -> None:
    """Run the cases that have no row yet, print all, and end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with events.parquet and perhaps items.parquet")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all of cases.toml")
    parser.add_argument("--work", type=Path, default=Path("work/ablation"), help="where tables and ranks go")
    arguments = parser.parse_args(argv)
    cases = tomllib.loads(CASES.read_text(encoding="utf-8"))
    names = ["base", *(name for name in arguments.cases or cases if name != "base")]
    work = arguments.work / arguments.data.name
    work.mkdir(parents=True, exist_ok=True)
    spark, rows = build_session(SparkSettings(), "recsys-spark ablation"), []
    print(
        f"{'NDCG@10':24}" + "".join(f"{n:>9}" for n in ("encoder", "fused", "head", "torso", "tail", "cold")) + "  fused - base"
    )
    try:
        for name in names:
            key = {"case": name, "settings": cases[name]}
            make = lambda n=name: run_case(arguments.data, n, cases[n], spark, work)  # noqa: E731
            row = once(RESULTS, f"{arguments.data.name}-ablation-{name}", key, make)
            gap = differences(work, name) if name != "base" else None
            print(line(row, gap), flush=True)
            rows.append({"case": name, "systems": row["systems"], "difference": gap})
    finally:
        spark.stop()
    print(json.dumps({"row": "ablation", "data": arguments.data.name, "cases": rows}))


if __name__ == "__main__":
    main()
