"""Blocks of users, made one by one wherever Spark puts them: a block depends on its number and the settings alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_spark.synthetic.catalogue import Ints, catalogue
from recsys_spark.synthetic.choices import PURCHASE, choices
from recsys_spark.synthetic.flaws import draw_flaws
from recsys_spark.synthetic.robots import EVENTS_PER_ROBOT, crawl
from recsys_spark.synthetic.sessions import sessions
from recsys_spark.synthetic.settings import SyntheticSettings

EVENTS_PER_BLOCK = 131_072  # about, so that a block's arrays stay in the processor's caches
MOST_USERS_PER_BLOCK = 65_536
ROW = "user int, number int, item int, kind tinyint, ts timestamp, value double, device tinyint, flaw tinyint"
_ROBOT_DEVICE = 1  # desktop


class Plan:
    """How users and robots are cut into blocks; user numbers of robots follow those of people."""

    def __init__(self, settings: SyntheticSettings) -> None:
        self.settings = settings
        wanted = round(EVENTS_PER_BLOCK * settings.users / settings.events)
        self.users_per_block = min(max(wanted, 1), MOST_USERS_PER_BLOCK)
        self.robots_per_block = max(EVENTS_PER_BLOCK // EVENTS_PER_ROBOT, 1)
        self.people_blocks = -(-settings.users // self.users_per_block)
        self.robot_blocks = -(-settings.num_robots // self.robots_per_block)

    @property
    def blocks(self) -> int:
        return self.people_blocks + self.robot_blocks

    def batch(self, block: int) -> Any:
        """The rows of one block, an Arrow batch of ``ROW``."""
        if block < self.people_blocks:
            return _people(self.settings, block, *_cut(block, self.users_per_block, self.settings.users))
        number = block - self.people_blocks
        first, count = _cut(number, self.robots_per_block, self.settings.num_robots)
        return _robots(self.settings, number, self.settings.users + first, count)


def make_blocks(settings: SyntheticSettings, batches: Iterable[Any]) -> Iterator[Any]:
    """For ``mapInArrow``. In: ``id``, block numbers. Out: ``ROW``."""
    plan = Plan(settings)
    for batch in batches:
        for block in batch.column(0).to_pylist():
            yield plan.batch(block)


def _cut(number: int, size: int, total: int) -> tuple[int, int]:
    """First of a cut, and how many it has."""
    return number * size, min(size, total - number * size)


def _people(settings: SyntheticSettings, block: int, first_user: int, num_users: int) -> Any:
    items = catalogue(settings)
    made = sessions(settings, block, num_users)
    chosen = choices(settings, items, made, block, num_users)
    rows, flaw = draw_flaws(settings, block, len(made.user))
    item, kind = chosen.item[rows], chosen.kind[rows]
    value = pa.array(items.price[item], pa.float64(), mask=kind != PURCHASE)
    return _batch(
        settings, first_user + made.user[rows], made.number[rows], item, kind, made.ts_ms[rows], value, chosen.device[rows], flaw
    )


def _robots(settings: SyntheticSettings, block: int, first_user: int, num_robots: int) -> Any:
    made = crawl(settings, catalogue(settings), block, num_robots)
    zeros = np.zeros(len(made.robot), np.int8)
    value = pa.nulls(len(zeros), pa.float64())
    return _batch(
        settings, first_user + made.robot, made.number, made.item, zeros, made.ts_ms, value, zeros + _ROBOT_DEVICE, zeros
    )


def _batch(  # noqa: PLR0913  # one argument per column of ROW
    settings: SyntheticSettings,
    user: Ints,
    number: Ints,
    item: Ints,
    kind: Ints,
    ts_ms: Ints,
    value: Any,
    device: Ints,
    flaw: Ints,
) -> Any:
    start_ms = round(datetime.combine(settings.start, time(), UTC).timestamp() * 1_000)
    micros = pa.array((ts_ms + start_ms) * 1_000, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    columns = {
        "user": pa.array(user.astype(np.int32)),
        "number": pa.array(number.astype(np.int32)),
        "item": pa.array(item.astype(np.int32)),
        "kind": pa.array(kind.astype(np.int8)),
        "ts": micros,
        "value": value,
        "device": pa.array(device.astype(np.int8)),
        "flaw": pa.array(flaw.astype(np.int8)),
    }
    return pa.RecordBatch.from_pydict(columns)
