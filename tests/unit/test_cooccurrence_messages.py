"""What tasks send each other: baskets survive the wire, however finely messages are cut, and totals add up."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence import messages, tasks
from recsys_spark.cooccurrence.grouping import from_sizes
from recsys_spark.cooccurrence.message_files import Pointer, into_files, messages_at
from tests.cooccurrence_job import Event, count_without_spark
from tests.cooccurrence_twin import twin_counts

ROWS = pa.RecordBatch.from_pydict({"keys": np.arange(40), "items": (np.arange(40) % 3).astype(np.int32)})


@pytest.mark.parametrize(("window", "half_life"), [(None, None), (None, 9.0), (4.0, 9.0)])
def test_the_job_without_spark_equals_the_twin(
    window: float | None, half_life: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(1)
    rows = [(rng.randrange(30), rng.randrange(25), rng.randrange(60)) for _ in range(400)]
    events = [Event(*row) for row in rows]
    settings = CooccurrenceSettings(window_days=window, half_life_days=half_life)
    expected, held, total = twin_counts(rows, None if window is None else int(window), half_life, 60)
    found, facts, few = count_without_spark(events, settings)
    assert {pair: r["num_baskets"] for pair, r in found.items()} == {pair: n for pair, (n, _) in expected.items()}
    assert all(r["num_baskets_a"] == held[a] and r["num_baskets_total"] == total for (a, _), r in found.items())
    if half_life is not None:
        assert all(r["decayed_count"] == pytest.approx(expected[pair][1], rel=1e-9) for pair, r in found.items())
    assert (facts["num_baskets"], facts["num_items"]) == (total, len(held))
    monkeypatch.setattr(messages, "MAX_ENTRIES", 7)  # smaller than most baskets: one basket a message
    again, _, many = count_without_spark(events, settings)
    assert many > few
    assert again == found


@pytest.mark.parametrize("key", [5, -(2**31) - 1, 2**31, 2**63 - 1])
def test_keys_arrive_as_they_were(key: int) -> None:
    """In 32 bits or in 64, also where parts of a task were dealt in different ones."""
    columns = [{"keys": np.array([1, some, 3]), "items": np.array([7, 8, 9], np.int32)} for some in (2, key)]
    sent = [m for part in columns for m in messages.deal_rows([0], [pa.RecordBatch.from_pydict(part)])]
    assert [len(message["keys"][0].as_py()) for message in sent] == [12, 12 if key == 5 else 24]
    found = messages.read_columns(sent)
    assert found["keys"].tolist() == [1, 2, 3, 1, key, 3]
    assert (found["keys"].dtype, found["items"].dtype) == (np.int64, np.int32)


def test_messages_of_odd_sizes_share_a_batch() -> None:
    """As Spark sends them: the second one's numbers do not lie where its processor wants them."""
    one, other = (from_sizes([n], np.arange(n, dtype=np.int32), sides=np.ones(n, np.int8)) for n in (3, 4))
    sent = [m for baskets in (one, other) for m in messages.basket_messages(0, 0, baskets, 1)]
    together = pa.Table.from_batches(sent).combine_chunks().to_batches()[0]
    for row, baskets in enumerate((one, other)):
        found = messages.read_baskets(together, row)
        assert found.items.tolist() == baskets.items.tolist()
        assert found.dealt is not None
        assert [column.tolist() for column in found.dealt.of_block(0)] == [baskets.items.tolist(), [0] * len(baskets.items)]
        assert all(column.flags.aligned for column in (found.items, found.dealt.rows, found.dealt.ends))


def test_size_histogram_doubles_its_bins() -> None:
    assert tasks.size_histogram(np.array([1, 1, 2, 3, 4, 5, 8, 9])) == {"1": 2, "2": 1, "3-4": 2, "5-8": 2, "9-16": 1}
    assert tasks.size_histogram(np.zeros(0, dtype=np.int64)) == {}


def test_empty_tasks_send_only_totals() -> None:
    found, facts, sent = count_without_spark([], CooccurrenceSettings())
    assert (found, sent) == ({}, 0)
    assert facts == {
        "num_baskets": 0,
        "capped_baskets": 0,
        "items_cut": 0,
        "occurrences_cut": 0,
        "num_items": 0,
        "basket_sizes": {},
    }


def test_a_killed_task_leaves_nothing_that_counts(tmp_path: Path) -> None:
    """The first attempt dies with its file half written; the second has a file of its own."""
    killed = get_context("spawn").Process(target=_dies_at_the_second_message, args=(tmp_path,))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    told = list(into_files(partial(messages.deal_rows, range(4)), str(tmp_path), [ROWS]))
    pointers = [Pointer(**row) for batch in told for row in batch.to_pylist()]
    assert sorted(pointer.slot for pointer in pointers) == [0, 1, 2, 3]
    assert sum(pointer.num_entries for pointer in pointers) == 40
    assert str(left) not in {pointer.file for pointer in pointers}
    found = messages.read_columns(messages_at(pointers))
    assert sorted(zip(found["keys"].tolist(), found["items"].tolist(), strict=True)) == [(n, n % 3) for n in range(40)]


def _dies_at_the_second_message(folder: Path) -> None:
    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, message in enumerate(messages.deal_rows(range(4), batches)):
            if number:
                os.kill(os.getpid(), signal.SIGKILL)
            yield message

    list(into_files(work, str(folder), [ROWS]))
