"""The published SAR row on MovieLens-100K comes out to six decimals: it proves split, counting and metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.benchmark.ml100k_sar import PUBLISHED, print_sar, read_ratings
from recsys_spark.demo_data import ml100k_folder
from recsys_spark.errors import InputError


def test_sar_row_to_six_decimals(spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    print_sar(ml100k_folder(), spark)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["train"], found["test"]) == (75_066, 24_934)
    assert PUBLISHED == {"map": 0.114038, "ndcg": 0.393819, "precision": 0.340615, "recall": 0.185377}
    assert {name: round(value, 6) for name, value in found["measured"].items()} == PUBLISHED
    assert found["agrees"] is True


def test_a_folder_without_the_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no ml-100k\.inter"):
        read_ratings(tmp_path)


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ml-100k.inter").write_text("user\titem\n1\t2\n", encoding="utf-8")
    with pytest.raises(InputError, match="columns"):
        read_ratings(tmp_path)
