"""Which items lists may hold at all: block and allow lists, for everybody and for the users of one segment."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.config.serving import RecommendSettings
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.recommend.scoring.scores import Ints

BLOCK, ALLOW = "block", "allow"
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """Ids that are blocked, and the only ones that are allowed (empty: all)."""

    blocked: frozenset[str] = frozenset()
    allowed: frozenset[str] = frozenset()

    def permits(self, item_id: str) -> bool:
        """Whether a list may hold the item; a block outweighs an allowance."""
        return item_id not in self.blocked and (not self.allowed or item_id in self.allowed)

    def document(self) -> list[list[str]]:
        """For fingerprints."""
        return [sorted(self.blocked), sorted(self.allowed)]


@dataclass(frozen=True)
class Rules:
    """``everybody`` holds for all users; ``segments[value]`` for those whose segment has this value, on top of it."""

    everybody: Rule = Rule()
    segments: Mapping[str, Rule] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """For fingerprints."""
        return {"": self.everybody.document(), **{name: rule.document() for name, rule in sorted(self.segments.items())}}


@dataclass(frozen=True)
class SegmentLists:
    """``names`` of S segments with a rule of their own, and ``allowed [S, N]``: what it leaves of the catalogue."""

    names: tuple[str, ...]
    allowed: Bools

    @classmethod
    def of(cls, rules: Rules, item_ids: npt.NDArray[Any]) -> SegmentLists:
        """The rules of segments over the items in catalogue order."""
        names = tuple(sorted(rules.segments))
        allowed = np.array([[rules.segments[name].permits(i) for i in item_ids] for name in names], np.bool_)
        return cls(names, allowed.reshape(len(names), len(item_ids)))

    def number(self, segments: list[str | None]) -> Ints:
        """Row of each user's segment [B]; -1 where it has no rule."""
        rows = {name: row for row, name in enumerate(self.names)}
        return np.array([-1 if value is None else rows.get(value, -1) for value in segments], np.int64)


def read_rules(settings: RecommendSettings) -> Rules:
    """The rules of the config and of its file of lists.

    Raises:
        InputError: the file is missing, lacks the column item_id or has a rule that is neither block nor allow.
        ConfigError: the file names a segment, and no key tells which segment a user is in.
    """
    rows = [("", BLOCK, item) for item in settings.block_items] + [("", ALLOW, item) for item in settings.allow_items]
    if settings.lists_path is not None:
        rows += _read_lists(Path(settings.lists_path))
    found = {name: _rule([row for row in rows if row[0] == name]) for name in {row[0] for row in rows}}
    everybody = found.pop("", Rule())
    if found and settings.segment_key is None:
        where, named = f"[recommend] lists_path = {settings.lists_path!r}", f"a segment {min(found)!r} and no segment_key"
        raise ConfigError(where, named, "the key that names a user's segment", "set recommend.segment_key, or empty the column")
    return Rules(everybody, found)


def _rule(rows: list[tuple[str, str, str]]) -> Rule:
    blocked, allowed = (frozenset(item for _, rule, item in rows if rule == kind) for kind in (BLOCK, ALLOW))
    return Rule(blocked, allowed)


def _read_lists(path: Path) -> list[tuple[str, str, str]]:
    """(segment, rule, item_id) of each row."""
    where = f"lists {path}"
    if not path.is_file():
        raise InputError(where, "no such file", "a CSV file with a column item_id", "check recommend.lists_path")
    with path.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if "item_id" not in (reader.fieldnames or ()):
            raise InputError(where, f"columns {', '.join(reader.fieldnames or ()) or '(none)'}", "a column item_id")
        rows = [(row.get("segment") or "", (row.get("rule") or BLOCK).strip(), row["item_id"]) for row in reader]
    for number, (_, rule, _) in enumerate(rows, start=2):
        if rule not in (BLOCK, ALLOW):
            raise InputError(f"{where}, line {number}", f"rule {rule!r}", f"{BLOCK} or {ALLOW}", "correct the file")
    return [row for row in rows if row[2]]


NO_SEGMENTS = SegmentLists((), np.zeros((0, 0), np.bool_))
