"""Files of a search on storage that driver and executors see: named by content, written aside and renamed when whole."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsys_spark.errors import InputError
from recsys_spark.files import write_whole
from recsys_spark.search.vectors import Ints, Pieces

ITEMS = "items-"  # begins the name of every folder of items


def publish(path: Path, write: Callable[[Path], None]) -> bool:
    """Write a file unless it stands; returns whether it was written.

    Names follow content, so whoever comes second (a retried or speculative task) would write the same: a file that stands
    is whole and right, and a rename over it changes nothing.
    """
    if path.exists():
        return False
    write_whole(path, write)
    return True


def publish_array(path: Path, values: Any) -> bool:
    """``publish`` of an array in NumPy's own format."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # np.save would add .npy to a name
            np.save(file, values)

    return publish(path, write)


def read_json(path: Path) -> Any:
    """The document at ``path``, None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def forget_others(folder: Path) -> None:
    """Remove the folders of other items beside ``folder``."""
    for other in folder.parent.glob(f"{ITEMS}*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


@dataclass(frozen=True)
class Shards:
    """Items that stand in ``folder``: ``numbers`` of the shards that hold any, and how many each holds.

    Shards follow one another in tie order, so that a position counts rows through all of them.
    """

    folder: str
    numbers: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def num_items(self) -> int:
        return sum(self.sizes)

    def vectors_path(self, number: int) -> Path:
        return Path(self.folder) / f"vectors-{number:05d}.npy"

    def items_path(self, number: int) -> Path:
        return Path(self.folder) / f"item_idx-{number:05d}.npy"

    @property
    def vectors(self) -> Pieces:
        """``[N, D]``, memory-mapped once per process."""
        return _mapped_vectors(self)

    @property
    def item_idx(self) -> Ints:
        """``[N]``, the item at each position; read once per process."""
        return _item_idx(self)


@functools.lru_cache(maxsize=4)
def _mapped_vectors(shards: Shards) -> Pieces:  # not kept in the shards themselves, which are sent to executors
    return Pieces(tuple(_mapped(shards.vectors_path(number)) for number in shards.numbers))


@functools.lru_cache(maxsize=4)
def _item_idx(shards: Shards) -> Ints:
    return np.concatenate([_mapped(shards.items_path(number)) for number in shards.numbers])


def _mapped(path: Path) -> Any:
    """Mode "c" because torch warns of arrays that cannot be written; nothing is written."""
    try:
        return np.load(path, mmap_mode="c")
    except FileNotFoundError:
        raise unseen(path) from None


def unseen(path: Path) -> InputError:
    """The error of a machine that lacks a file another one has written."""
    return InputError(
        f"search folder {path.parent}", f"no {path.name}", "a folder that all machines share", "set another work_dir"
    )
