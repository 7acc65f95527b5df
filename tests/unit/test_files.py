"""Files that appear whole or not at all, and processes kept to one thread."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import pytest
import torch

from recsys_spark.files import write_json, write_text, write_whole
from recsys_spark.threads import one_thread


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "facts.json"
    write_json(path, {"b": 1, "a": [2]})
    assert json.loads(path.read_text()) == {"a": [2], "b": 1}
    write_text(path, "ü\n")
    assert path.read_bytes() == b"\xc3\xbc\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["facts.json"]


def test_a_write_that_fails_leaves_what_stood(tmp_path: Path) -> None:
    def broken(partial: Path) -> None:
        partial.write_text("half")
        raise OSError("disk full")

    path = tmp_path / "facts.json"
    write_text(path, "before")
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, broken)
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["facts.json"]


def test_one_thread_is_for_torch_and_for_faiss_where_it_is_loaded() -> None:
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    try:
        torch.set_num_threads(2)
        faiss.omp_set_num_threads(2)
        one_thread()
        assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == (1, 1)
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])
