"""The files of the state, read by the tasks that sum it: through the JVM and a shuffle all pairs would go once each night.

A commit puts the anchors of a block into one file, and so does the next. So files fall into groups that have no anchor in
common, which is found out, not taken for granted: a group is a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from recsys_spark.cooccurrence.additive.deltas import added_up, state_batch, summed
from recsys_spark.cooccurrence.occurrences import PairCounts

GROUPS = "slot int, files array<string>"
_NO_ROWS = state_batch(summed([]))
_COLUMNS = _NO_ROWS.schema.names
_PAIRS_AT_ONCE = 1 << 20  # on average: they and what becomes of them stay near a core's cache


def groups_of_files(files: Sequence[Path]) -> list[list[Path]]:
    """Files that share no anchor with those of another group; files of totals alone are in none. In each the largest is first."""
    groups, last_with = DisjointSet(), np.zeros(0, np.int32)  # the last file so far that has each anchor, -1: none
    for number, file in enumerate(files):
        anchors = _anchors(file)
        if len(anchors):
            groups.add(number)
            more = int(anchors.max()) + 1 - len(last_with)
            last_with = np.append(last_with, np.full(max(more, 0), -1, np.int32))
            for other in np.unique(last_with[anchors]).tolist():
                if other >= 0:
                    groups.merge(number, other)
            last_with[anchors] = number
    found = ([files[number] for number in group] for group in groups.subsets())
    return sorted(sorted(group, key=lambda file: (-file.stat().st_size, file.name)) for group in found)


def bytes_beside_the_largest(group: Sequence[Path]) -> int:
    """Of the files that its task holds as a whole."""
    return sum(file.stat().st_size for file in group[1:])


def pairs_in_files(batches: Iterable[pa.RecordBatch]) -> Iterator[PairCounts]:
    """For rows of ``GROUPS``: their pairs, each once; all of an anchor in one of the parts."""
    for batch in batches:
        for files in batch.column("files").to_pylist():
            yield from pairs_of_group(files)


def pairs_of_group(files: Sequence[str]) -> Iterator[PairCounts]:
    """The pairs of files whose anchors are in no others. The first is gone through a part at a time, the others are held."""
    main, others = pq.ParquetFile(files[0], memory_map=True), _Others(files[1:])
    anchors = _anchors(files[0])
    if len(np.unique(anchors)) < len(anchors):  # some of an anchor's rows might lie in a later part
        parts = main.iter_batches(columns=_COLUMNS, use_threads=False)
        yield summed([*map(_of_pairs, parts), others.rows])
        return
    for part in main.iter_batches(_rows_at_once(main, int(anchors.max(initial=0)) // 2), columns=_COLUMNS, use_threads=False):
        part = _of_pairs(part)
        yield added_up(part, others.take(part.column("item_a").to_numpy()))
    yield summed([others.left()])


def _anchors(file: Path | str) -> NDArray[np.int32]:
    """Of the file's rows that hold pairs; those of totals have negative numbers."""
    found: NDArray[np.int32] = pq.read_table(file, columns=["item_a"]).column("item_a").to_numpy()
    return found[found >= 0]


def _of_pairs(batch: pa.RecordBatch) -> pa.RecordBatch:
    wanted = pc.greater_equal(batch.column("item_a"), 0)
    return batch if pc.all(wanted).as_py() else batch.filter(wanted)


def _rows_at_once(file: pq.ParquetFile, least: int) -> int:
    """So many that they hold ``_PAIRS_AT_ONCE`` on average, or ``least`` pairs: each sum clears a place for every item."""
    of_groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    at = file.schema_arrow.get_field_index("item_b")
    pairs = sum(int(group.column(at).num_values) for group in of_groups)
    return max(1, int(file.metadata.num_rows) * max(_PAIRS_AT_ONCE, least) // max(pairs, 1))


class _Others:
    """Rows of some files, given out anchor by anchor."""

    def __init__(self, files: Sequence[str]) -> None:
        tables = [pq.read_table(file, columns=_COLUMNS, use_threads=False) for file in files]
        held = pa.concat_tables(tables).combine_chunks().to_batches() if tables else []
        self.rows = _of_pairs(held[0]) if held else _NO_ROWS
        anchors = self.rows.column("item_a").to_numpy()
        self._order = np.argsort(anchors, kind="stable")
        self._anchors, self._given = anchors[self._order], np.zeros(len(anchors), np.bool_)

    def take(self, anchors: NDArray[np.int32]) -> pa.RecordBatch:
        """The rows of these anchors, ascending."""
        if not len(anchors):
            return _NO_ROWS
        near = slice(*np.searchsorted(self._anchors, [anchors.min(), anchors.max() + 1]))
        chosen = near.start + np.flatnonzero(np.isin(self._anchors[near], anchors))
        self._given[chosen] = True
        return self.rows.take(pa.array(self._order[chosen]))

    def left(self) -> pa.RecordBatch:
        """Those that nobody has taken."""
        return self.rows.take(pa.array(self._order[~self._given]))
