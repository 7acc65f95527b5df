"""Write MovieLens-100K in the shape of the leave-one-out benchmark: python -m benchmarks.quality.ml100k_parquet DIR"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from recsys_spark.demo_data import ml100k_folder


def write(target: Path) -> None:
    """events.parquet (user_id, item_id, ts, rating) in the file's order and items.parquet (item_id, title, classes)."""
    source = ml100k_folder()
    target.mkdir(parents=True, exist_ok=True)
    text: Any = {"user_id:token": str, "item_id:token": str, "timestamp:float": "int64"}
    events = pd.read_csv(source / "ml-100k.inter", sep="\t", dtype=text)
    events.columns = pd.Index(["user_id", "item_id", "rating", "ts"])
    events.to_parquet(target / "events.parquet", index=False)
    items = pd.read_csv(source / "ml-100k.item", sep="\t", dtype=str, keep_default_na=False)
    items.columns = pd.Index(["item_id", "title", "year", "classes"])
    items[["item_id", "title", "classes"]].to_parquet(target / "items.parquet", index=False)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
