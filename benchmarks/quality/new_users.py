"""What users without a history get by their profile text, against what is popular; on MovieLens-100K.

python -m benchmarks.quality.new_users [--data DIR] [--held-out 0.2] [CASE ...]

A share of the users leaves the log; their rows in the table of users stay, and so does what they are (age, gender,
occupation) as their profile text. A night runs on the rest; what the held-out users rated is what their lists are to hold.
The last line is JSON: per case NDCG@10 and its difference to the popular list, paired, with the interval.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.quality.new_items import draw
from recsys_spark.config import parse_config
from recsys_spark.config.serving import SparkSettings
from recsys_spark.demo_data import ml100k_folder
from recsys_spark.evaluate.metrics import ndcg
from recsys_spark.evaluate.significance import paired_bootstrap
from recsys_spark.night import Night
from recsys_spark.order import run_night
from recsys_spark.session import build_session

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "words": {},  # what the profile's words say of the items' words
    "item-tower": {"embed": {"profile_users": True}},  # and the vector of an item with such a text
    "profile-tower": {"embed": {"profile_users": True}, "train": {"profile_share": 0.1}},  # and one learned from users
}
TEMPLATE = "{age:token} years old, {gender:token}, {occupation:token}"
# users of whom nothing was met before the validation choose what their texts are worth: it takes a split by time
AS_OF = datetime(1998, 4, 24, tzinfo=UTC)  # the day after the last rating
SPLIT = {"split": "time", "holdout_days": 14.0, "validation_days": 45.0}
KINDS = ("inter", "item", "user", "kg", "link")
_TEN, _SAMPLES, _CONFIDENCE = 10, 2_000, 0.95
Floats = NDArray[np.float64]


def split(data: Path, share: float, out: Path) -> dict[str, set[str]]:
    """Copies the files of ``data`` into ``out``, the log without the held-out users; returns what these rated."""
    out.mkdir(parents=True, exist_ok=True)
    rated: dict[str, set[str]] = {}
    for kind in KINDS:
        lines = _text(data / f"ml-100k.{kind}").splitlines(keepends=True)
        if kind == "inter":
            head, *rows = lines
            lines = [head]
            for row in rows:
                user, item, *_ = row.split("\t")
                if draw(user, "new user") < share:
                    rated.setdefault(user, set()).add(item)
                else:
                    lines.append(row)
        (out / f"ml-100k.{kind}").write_text("".join(lines), encoding="utf-8")
    return rated


def _text(path: Path) -> str:
    packed = path.with_name(f"{path.name}.gz")
    return gzip.decompress(packed.read_bytes()).decode() if packed.exists() else path.read_text(encoding="utf-8")


def settings(files: Path, warehouse: Path, case: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The demo's settings, on these files."""
    found = tomllib.loads(Path("conf/demo.toml").read_text(encoding="utf-8"))
    found["warehouse"] = str(warehouse)
    for source in found["ingest"].values():
        for part in (source, source.get("links", {})):
            if "path" in part:
                part["path"] = str(files / Path(part["path"]).name)
    found["ingest"]["users"]["template"] = TEMPLATE
    found |= {"as_of": AS_OF, "evaluate": SPLIT}
    for section, values in case.items():
        found.setdefault(section, {}).update(values)
    return found


def run_case(
    files: Path, warehouse: Path, case: dict[str, dict[str, Any]], spark: SparkSession, users: list[str]
) -> dict[str, Any]:
    """The lists of the held-out users, what they rest on, and the popular list."""
    config = parse_config(settings(files, warehouse, case))
    run_night(config, spark)
    night = Night(config, spark)
    current = (F.col("run_id") == night.run_id) & (F.col("rank") <= _TEN)
    lists = night.store.read("recommendations", "live").where(current & F.col("user_id").isin(users))
    popular = night.store.read("fallback_recommendations", "live").where(current & (F.col("context") == ""))
    sources = {row["source"]: row["count"] for row in lists.groupBy("source").count().collect()}
    shown = {"lists": _by(lists, "user_id"), "popular": _by(popular, "context")[""], "sources": sources}
    return {**shown, "profile": night.facts("register")["profile"]}


def _by(rows: DataFrame, owner: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows.orderBy(owner, "rank").collect():
        found.setdefault(row[owner], []).append(row["item_id"])
    return found


def _ndcg(lists: dict[str, list[str]], rated: dict[str, set[str]]) -> Floats:
    """NDCG@10 of each user, in the order of their ids; what was rated is relevant."""
    users = sorted(rated)
    hits = np.zeros((len(users), _TEN), np.bool_)
    for row, user in enumerate(users):
        found = [item in rated[user] for item in lists[user][:_TEN]]
        hits[row, : len(found)] = found
    return ndcg(hits, np.array([len(rated[user]) for user in users]), _TEN)


def compared(found: dict[str, Any], rated: dict[str, set[str]]) -> dict[str, Any]:
    """Figures of one case on the held-out users."""
    users = sorted(rated)
    popular = dict.fromkeys(users, found["popular"])
    ours, rival = (_ndcg(lists, rated) for lists in (popular | found["lists"], popular))
    gap = paired_bootstrap(ours, rival, _SAMPLES, _CONFIDENCE, seed=0)
    return {
        "users": len(users),
        "sources": found["sources"],
        "validation": found["profile"],
        "ndcg": round(float(ours.mean()), 4),
        "popular_ndcg": round(float(rival.mean()), 4),
        "difference": [round(value, 4) for value in (gap.value, gap.low, gap.high)],
    }


def main() -> None:
    """Each case asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="folder with the five files of MovieLens-100K, packed by gzip or not; else fetched"
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of the users")
    parser.add_argument("--work", type=Path, default=Path("work/new-users"), help="where files and tables go")
    arguments = parser.parse_args()
    rated = split(arguments.data or ml100k_folder(), arguments.held_out, arguments.work / "files")
    spark = build_session(SparkSettings(driver_memory="3g"), "new users")
    rows = {}
    try:
        for name in arguments.cases or CASES:
            found = run_case(arguments.work / "files", arguments.work / name, CASES[name], spark, sorted(rated))
            rows[name] = compared(found, rated)
            print(json.dumps({name: rows[name]}), flush=True)
    finally:
        spark.stop()
    print(json.dumps({"row": "new-users", "held_out": arguments.held_out, "cases": rows}))


if __name__ == "__main__":
    main()
