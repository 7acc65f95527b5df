"""The state read from its files: the same pairs as from its rows, however the rows lie in files and whatever is held at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.cooccurrence.additive import files as state_files
from recsys_spark.cooccurrence.additive.deltas import SCHEMA, added_up, state_batch, summed
from recsys_spark.cooccurrence.additive.files import bytes_beside_the_largest, groups_of_files, pairs_in_files
from recsys_spark.cooccurrence.occurrences import PairCounts

Pair = tuple[int, int]
Counts = dict[Pair, tuple[int, float]]

counts = st.dictionaries(
    st.tuples(st.integers(0, 12), st.integers(0, 9)),
    st.tuples(st.integers(-3, 3).filter(bool), st.sampled_from([0.0, 0.25, -1.5, 2.0])),
    max_size=40,
)
commits = st.lists(counts, min_size=1, max_size=4)


def batch_of(pairs: Counts, decays: bool) -> pa.RecordBatch:
    """A commit's rows, one per anchor."""
    keys = sorted(pairs)
    a, b = (np.array([key[place] for key in keys], dtype=np.int32) for place in (0, 1))
    both = np.array([pairs[key][0] for key in keys], dtype=np.int64)
    return state_batch(PairCounts(a, b, both, np.array([pairs[key][1] for key in keys]) if decays else None))


def added(parts: list[Counts], decays: bool) -> Counts:
    """The sums by plain dictionaries."""
    found: Counts = {}
    for part in parts:
        for key, (both, decayed) in part.items():
            before = found.get(key, (0, 0.0))
            found[key] = (before[0] + both, before[1] + (decayed if decays else 0.0))
    return {key: value for key, value in found.items() if value[0]}


def as_counts(pairs: PairCounts) -> Counts:
    shares = np.zeros(len(pairs.both)) if pairs.decayed is None else pairs.decayed
    keys = list(zip(pairs.item_a.tolist(), pairs.item_b.tolist(), strict=True))
    assert len(keys) == len(set(keys)), "a pair stands twice"
    return dict(zip(keys, zip(pairs.both.tolist(), shares.tolist(), strict=True), strict=True))


def written(folder: Path, rows: list[pa.RecordBatch], group_rows: int) -> Path:
    file = folder / f"{len(list(folder.iterdir()))}.parquet"
    pq.write_table(pa.Table.from_batches(rows), file, row_group_size=group_rows)
    return file


def of_blocks(batch: pa.RecordBatch, num_blocks: int) -> list[pa.RecordBatch]:
    blocks = batch.column("item_a").to_numpy() % num_blocks
    return [batch.filter(pa.array(blocks == block)) for block in range(num_blocks)]


@given(commits, st.booleans(), st.integers(1, 3), st.sampled_from([1, 2, 5, 100]), st.sampled_from([1, 4, 1000]))
def test_pairs_of_files_are_those_of_rows(
    parts: list[Counts], decays: bool, num_blocks: int, group_rows: int, at_once: int
) -> None:
    batches = [batch_of(part, decays) for part in parts]
    totals = state_batch(PairCounts(np.array([-2, -1], np.int32), np.array([3, 4], np.int32), np.array([7, 8])))
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(state_files, "_PAIRS_AT_ONCE", at_once)
        folder = Path(name)
        files = [written(folder, [block], group_rows) for b in batches for block in of_blocks(b, num_blocks) if block.num_rows]
        files.append(written(folder, [totals], group_rows))
        groups = groups_of_files(files)
        anchors = [{a for file in group for a in pq.read_table(file)["item_a"].to_pylist()} for group in groups]
        assert sum(len(some) for some in anchors) == len(set().union(*anchors)) == len({key[0] for part in parts for key in part})
        named = pa.RecordBatch.from_pydict({"slot": [0] * len(groups), "files": [[str(f) for f in group] for group in groups]})
        found: Counts = {}
        for pairs in pairs_in_files([named] if groups else []):
            assert not found.keys() & as_counts(pairs).keys()
            assert (np.diff(pairs.item_a) >= 0).all()
            found |= as_counts(pairs)
    assert found == added(parts, decays)


@given(commits, st.booleans())
def test_one_file_with_all_rows_is_read_as_well(parts: list[Counts], decays: bool) -> None:
    """As Delta's OPTIMIZE leaves it."""
    totals = state_batch(PairCounts(np.array([-1], np.int32), np.array([3], np.int32), np.array([7])))
    rows = [*(batch_of(part, decays) for part in parts), totals]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(state_files, "_PAIRS_AT_ONCE", 1)
        groups = groups_of_files([written(Path(name), rows, 2)])
        pairs = [part for group in groups for part in state_files.pairs_of_group([str(file) for file in group])]
    found = {key: value for part in pairs for key, value in as_counts(part).items()}
    assert found == added(parts, decays)


@given(counts, commits, st.booleans())
def test_adding_up_is_the_sum_of_everything(main: Counts, others: list[Counts], decays: bool) -> None:
    anchors = {key[0] for key in main}
    others = [{key: value for key, value in part.items() if key[0] in anchors} for part in others]
    rows = pa.Table.from_batches([batch_of(part, decays) for part in others]).combine_chunks().to_batches()
    held = rows[0] if rows else batch_of({}, decays)
    assert as_counts(added_up(batch_of(main, decays), held)) == added([main, *others], decays)
    assert as_counts(summed([batch_of(main, decays), held])) == added([main, *others], decays)


def test_what_a_task_holds_as_a_whole_is_told_of_all_but_the_largest_file(tmp_path: Path) -> None:
    small, large = ({(a, b): (1, 0.0) for a in range(2) for b in range(n)} for n in (3, 500))
    files = [written(tmp_path, [batch_of(part, False)], 100) for part in (small, large)]
    group = groups_of_files(files)[0]
    assert group == [files[1], files[0]]
    assert bytes_beside_the_largest(group) == files[0].stat().st_size < files[1].stat().st_size


def test_the_columns_that_are_read_are_those_of_the_state() -> None:
    assert [column.split()[0] for column in SCHEMA.split(", ")] == state_files._COLUMNS
