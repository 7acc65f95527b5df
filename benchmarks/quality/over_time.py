"""Lists for the last two weeks of MovieLens-100K, out of what came before: what it is worth that popularity forgets.

python -m benchmarks.quality.over_time [--data DIR] [CASE ...]

A night with a split by time; users of the test that nothing was known of before get popular lists. The last line is JSON: per
case the half-life, NDCG@10 of each partner alone on validation, and of the systems on the test.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.quality.new_users import settings, split
from recsys_spark.config import parse_config
from recsys_spark.config.serving import SparkSettings
from recsys_spark.demo_data import ml100k_folder
from recsys_spark.night import Night
from recsys_spark.order import run_night
from recsys_spark.session import build_session

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "chosen": {},
    "all-times": {"recommend": {"popularity_half_life_days": 0}},  # every event counts alike
}
_HOLDOUT = {"split": "time", "holdout_days": 14.0, "validation_days": 14.0}


def run_case(files: Path, warehouse: Path, case: dict[str, dict[str, Any]], spark: SparkSession) -> dict[str, Any]:
    """One night's figures."""
    found = settings(files, warehouse, case)
    config = parse_config(found | {"evaluate": _HOLDOUT})
    run_night(config, spark)
    night = Night(config, spark)
    at_ten = (F.col("k") == 10) & (F.col("name") == "ndcg")
    rows = night.store.read("metrics", night.eval_namespace).where(at_ten).collect()
    registered = night.facts("register")
    return {
        "half_life_days": registered["fusion"].get("half_life_days"),
        "validation": {next(iter(weights)): ndcg for weights, ndcg in registered["tried"] if len(weights) == 1},
        "test": {f"{r['system']} {r['segment']}": [round(r[n] or 0.0, 4) for n in ("value", "low", "high")] for r in rows},
    }


def main() -> None:
    """Each case asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the five files of MovieLens-100K; else fetched")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--work", type=Path, default=Path("work/over-time"), help="where files and tables go")
    arguments = parser.parse_args()
    split(arguments.data or ml100k_folder(), 0.0, arguments.work / "files")
    spark, rows = build_session(SparkSettings(driver_memory="3g"), "over time"), {}
    try:
        for name in arguments.cases or CASES:
            rows[name] = run_case(arguments.work / "files", arguments.work / name, CASES[name], spark)
            print(json.dumps({name: rows[name]}), flush=True)
    finally:
        spark.stop()
    print(json.dumps({"row": "over-time", "cases": rows}))


if __name__ == "__main__":
    main()
