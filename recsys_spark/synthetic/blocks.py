"""Blocks of users, made one by one wherever Spark puts them: a block depends on its number and the settings alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_spark.synthetic.catalogue import catalogue
from recsys_spark.synthetic.choices import PURCHASE, choices
from recsys_spark.synthetic.columns import Rows, arrow_batch
from recsys_spark.synthetic.flaws import BAD, DUPLICATE, draw_flaws
from recsys_spark.synthetic.robots import EVENTS_PER_ROBOT, crawl
from recsys_spark.synthetic.sessions import event_counts, sessions
from recsys_spark.synthetic.settings import SyntheticSettings

EVENTS_PER_BLOCK = 131_072  # about, so that a block's arrays stay in the processor's caches
EVENTS_PER_FILE = 1_000_000
LEAST_FILES = 8  # so that a small log, too, is made by several cores
MOST_USERS_PER_BLOCK = 65_536
COUNTS = ("rows", "users", "robots", "robot_events", "duplicates", *[kind.name for kind in BAD])  # users: with an event
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
    def files(self) -> int:
        """Files of events: never by the number of cores, so that the same settings give the same files."""
        wanted = self.settings.files or max(LEAST_FILES, -(-self.settings.events // EVENTS_PER_FILE))
        return min(wanted, self.blocks)

    def blocks_of(self, file: int) -> range:
        """The blocks that one file holds."""
        return range(file * self.blocks // self.files, (file + 1) * self.blocks // self.files)

    @property
    def blocks(self) -> int:
        return self.people_blocks + self.robot_blocks

    def batch(self, block: int) -> Any:
        """The rows of one block, flaws included, as ``columns.arrow_batch`` makes them."""
        if block < self.people_blocks:
            first, count = _cut(block, self.users_per_block, self.settings.users)
            return arrow_batch(self.settings, _people(self.settings, block, first, count))
        number = block - self.people_blocks
        first, count = _cut(number, self.robots_per_block, self.settings.num_robots)
        return arrow_batch(self.settings, _robots(self.settings, number, self.settings.users + first, count))

    def counts(self, block: int) -> dict[str, int]:
        """``COUNTS`` of ``batch(block)``, without making its rows."""
        none = dict.fromkeys(COUNTS, 0)
        if block >= self.people_blocks:
            _, robots = _cut(block - self.people_blocks, self.robots_per_block, self.settings.num_robots)
            made = robots * EVENTS_PER_ROBOT
            return none | {"rows": made, "robots": robots, "robot_events": made}
        _, num_users = _cut(block, self.users_per_block, self.settings.users)
        events = event_counts(self.settings, block, num_users)
        rows, flaw = draw_flaws(self.settings, block, int(events.sum()))
        of_code = np.bincount(flaw, minlength=max(kind.code for kind in BAD) + 1).tolist()
        known = {"rows": len(rows), "users": int((events > 0).sum()), "duplicates": of_code[DUPLICATE]}
        return none | known | {kind.name: of_code[kind.code] for kind in BAD}


def _cut(number: int, size: int, total: int) -> tuple[int, int]:
    """First of a cut, and how many it has."""
    return number * size, min(size, total - number * size)


def _people(settings: SyntheticSettings, block: int, first_user: int, num_users: int) -> Rows:
    items = catalogue(settings)
    made = sessions(settings, block, num_users)
    chosen = choices(settings, items, made, block, num_users)
    rows, flaw = draw_flaws(settings, block, len(made.user))
    item, kind = chosen.item[rows], chosen.kind[rows]
    value = np.where(kind == PURCHASE, items.price[item], np.nan)
    user, number, ts_ms, device = made.user[rows], made.number[rows], made.ts_ms[rows], chosen.device[rows]
    return Rows(first_user + user, number, item, kind, ts_ms, value, device, flaw)


def _robots(settings: SyntheticSettings, block: int, first_user: int, num_robots: int) -> Rows:
    made = crawl(settings, catalogue(settings), block, num_robots)
    zeros = np.zeros(len(made.robot), np.int8)  # a view, and no flaw
    value, device = np.full(len(zeros), np.nan), zeros + _ROBOT_DEVICE
    return Rows(first_user + made.robot, made.number, made.item, zeros, made.ts_ms, value, device, zeros)
