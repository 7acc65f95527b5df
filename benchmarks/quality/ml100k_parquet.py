"""Write MovieLens-100K in the shape of the leave-one-out benchmark: python -m benchmarks.quality.ml100k_parquet DIR"""

from __future__ import annotations

import sys
from pathlib import Path

from recsys_spark.benchmark.ml100k import as_folder
from recsys_spark.demo_data import ml100k_folder

if __name__ == "__main__":
    as_folder(ml100k_folder(), Path(sys.argv[1]))
