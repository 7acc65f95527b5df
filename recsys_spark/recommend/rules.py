"""Which items lists may hold at all: block and allow lists, for everybody and for the users of one segment."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.config.serving import RecommendSettings
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.log import get_logger
from recsys_spark.recommend.scoring.scores import Ints

log = get_logger(__name__)
BLOCK, ALLOW = "block", "allow"
_COLUMNS = ("item_id", "segment", "rule")
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

    def tell_unknown(self, item_ids: Iterable[str]) -> None:
        """Log how many ids with a rule no item has: one that is misspelt bars nothing."""
        every = (self.everybody, *self.segments.values())
        unknown = sorted(frozenset().union(*(rule.blocked | rule.allowed for rule in every)) - set(item_ids))
        if unknown:
            log.warning("recommend: rules for ids that no item has", ids=len(unknown), first=unknown[0])

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
        InputError: the file is missing or not UTF-8, lacks the column item_id or has one like segment or rule that is neither,
            has a row without an item, or a rule that is neither block nor allow.
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
    rows: list[tuple[int, list[str]]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            first = csv.reader(lines)
            reader = csv.DictReader(lines, fieldnames=_header(where, next(first, [])))
            for row in reader:
                rows.append((first.line_num + reader.line_num, [row.get(name) or "" for name in _COLUMNS]))
    except UnicodeDecodeError as error:
        raise InputError(where, f"bytes that are not UTF-8 ({error.reason})", "a CSV file in UTF-8", "save it as UTF-8") from None
    return [_row(f"{where}, line {line}", *cells) for line, cells in rows]


def _row(where: str, item_id: str, segment: str, rule: str) -> tuple[str, str, str]:
    told = rule.strip() or BLOCK
    if not item_id.strip():
        raise InputError(where, "no item_id", "an item's id in every row", "correct the file")
    if told not in (BLOCK, ALLOW):
        raise InputError(where, f"rule {rule!r}", f"{BLOCK} or {ALLOW}", "correct the file")
    return segment.strip(), told, item_id


def _header(where: str, names: list[str]) -> list[str]:
    """The file's columns; one that is all but called segment or rule would pass for a note, and turn its rules around."""
    found = [name.strip() for name in names]
    if _COLUMNS[0] not in found:
        raise InputError(where, f"columns {', '.join(found) or '(none)'}", "a column item_id", "name it in the first line")
    for name in found:
        close = difflib.get_close_matches(name.lower(), _COLUMNS, n=1, cutoff=0.75)
        if close and name not in _COLUMNS:
            raise InputError(where, f"column '{name}'", f"column '{close[0]}', or a name unlike it", "correct the first line")
    return found


NO_SEGMENTS = SegmentLists((), np.zeros((0, 0), np.bool_))
