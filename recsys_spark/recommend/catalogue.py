"""The catalogue as arrays in tie order: which position an item has, what it is called, and which attributes it shares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from recsys_spark.encoder.attributes import SEPARATOR
from recsys_spark.recommend.rules import Rule
from recsys_spark.recommend.scoring.scores import Ints, as_rows

MAX_ATTRIBUTE_SHARE = 0.9  # a value on more items than this explains nothing


@dataclass(frozen=True)
class Item:
    """One row of the items table, as far as scoring needs it."""

    item_idx: int
    item_id: str
    title: str | None
    text: str
    category: str | None
    attributes: Mapping[str, str] | None
    available: bool


@dataclass(frozen=True)
class Catalogue:
    """N items in tie order: a seeded hash of item_id. ``lookup[item_idx]`` is a position, or -1 where not visible.

    ``attributes`` is a binary CSR ``[N, V]`` over the values named in ``attribute_names`` (V strings ``"name: value"``);
    ``common`` and ``common_names`` likewise the values on so many items that they explain nothing; limits know them all the same.
    """

    item_idx: npt.NDArray[np.int32]
    item_ids: npt.NDArray[Any]
    titles: npt.NDArray[Any]
    allowed: npt.NDArray[np.bool_]
    lookup: npt.NDArray[np.int32]
    attributes: Any
    attribute_names: npt.NDArray[Any]
    common: Any
    common_names: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.item_idx)

    @cached_property
    def id_strings(self) -> Any:
        """``item_ids`` as Arrow strings, made once for all blocks."""
        return pa.array(self.item_ids, pa.string())

    @cached_property
    def title_strings(self) -> Any:
        """``titles`` as Arrow strings."""
        return pa.array(self.titles, pa.string())

    @cached_property
    def every_attribute(self) -> tuple[Any, npt.NDArray[Any]]:
        """``attributes`` and ``common`` side by side, and the attribute that each of their columns is a value of; made once for
        all blocks."""
        names = (*self.attribute_names, *self.common_names)
        return as_rows(sparse.hstack([self.attributes, self.common])), _strings([str(name).split(": ", 1)[0] for name in names])

    def positions(self, item_idx: Ints) -> Ints:
        """Position of each item, -1 for one that is not in the catalogue."""
        inside = (item_idx >= 0) & (item_idx < len(self.lookup))
        if not len(self.lookup):
            return np.full(len(item_idx), -1, np.int64)
        return np.where(inside, self.lookup[np.where(inside, item_idx, 0)], -1).astype(np.int64)


def tie_hash(item_id: str, seed: int) -> int:
    """The seeded hash that orders items of equal score, the same in every path and on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{item_id}".encode(), digest_size=8).digest(), "big")


def in_tie_order(items: Iterable[Item], seed: int) -> list[Item]:
    """Items as every array of a run holds them: sorted by ``tie_hash``."""
    return sorted(items, key=lambda item: (tie_hash(item.item_id, seed), item.item_idx))


def build_catalogue(ordered: list[Item], rule: Rule, separator: str | None = None) -> Catalogue:
    """Arrays of items already in tie order, of which ``rule`` bars some. ``separator`` splits a category of several
    values; attributes come with theirs joined by ``|``."""
    item_idx = np.array([item.item_idx for item in ordered], np.int32)
    lookup = np.full(int(item_idx.max(initial=-1)) + 1, -1, np.int32)
    lookup[item_idx] = np.arange(len(ordered), dtype=np.int32)
    attributes, names, is_common = _attribute_matrix(ordered, separator)
    return Catalogue(
        item_idx,
        _strings([item.item_id for item in ordered]),
        _strings([item.title or item.item_id for item in ordered]),
        np.array([item.available and rule.permits(item.item_id) for item in ordered], np.bool_),
        lookup,
        as_rows(attributes[:, ~is_common]),
        names[~is_common],
        as_rows(attributes[:, is_common]),
        names[is_common],
    )


def _strings(values: list[str]) -> npt.NDArray[Any]:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def _values(item: Item, separator: str | None) -> set[str]:
    told = {"category": (item.category, separator)}
    told |= {name: (text, SEPARATOR) for name, text in (item.attributes or {}).items()}
    found = set()
    for name, (text, between) in told.items():
        values = text.split(between) if between and text else [text]
        found |= {f"{name}: {value.strip()}" for value in values if value and value.strip()}
    return found


def _attribute_matrix(ordered: list[Item], separator: str | None) -> tuple[Any, npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Values held by at least two items, what they are called, and which of them nearly all items hold."""
    columns: dict[str, int] = {}
    cells = [
        (row, columns.setdefault(v, len(columns))) for row, item in enumerate(ordered) for v in sorted(_values(item, separator))
    ]
    rows, cols = np.array(cells, np.int64).reshape(-1, 2).T
    matrix = sparse.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(len(ordered), len(columns)))
    held = np.bincount(cols, minlength=len(columns))
    shared = np.flatnonzero(held >= 2)
    is_common = held[shared] > max(2.0, MAX_ATTRIBUTE_SHARE * len(ordered))
    return as_rows(matrix[:, shared]), _strings(list(columns))[shared], is_common
