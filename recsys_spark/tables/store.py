"""The one writer of Delta tables: checked replace, upsert and append."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.errors import ContractError
from recsys_spark.tables.add_files import add_files
from recsys_spark.tables.content import Content, changes, check, content, hash_sums, summed
from recsys_spark.tables.contracts import Contract, conform, contract
from recsys_spark.tables.dealing import in_equal_parts, shuffled
from recsys_spark.tables.places import local_path
from recsys_spark.tables.reader import Reader
from recsys_spark.tables.task_files import Made, Staged, stage
from recsys_spark.tables.upsert import delete, pruned, upsert

MANY_ROWS = 500_000  # whose checks are done in several jobs


@dataclass(frozen=True)
class Commit:
    """Who writes and why; goes into the Delta commit together with the data."""

    run_id: str
    stage: str
    fingerprint: str

    def metadata(self, **facts: Any) -> str:
        return json.dumps({**asdict(self), **facts}, sort_keys=True)

    def metadata_of(self, table: str, after: Content) -> str:
        """Of a commit that leaves ``after`` in the table: nobody has to read the rows to know it."""
        return self.metadata(table=table, total=str(after.total), rows=after.rows)


@dataclass(frozen=True)
class Written:
    """What a write did. ``changed`` is False when the table already held this content."""

    table: str
    version: int
    rows: int
    content: str
    changed: bool


@dataclass(frozen=True)
class _Slice:
    """What is replaced: a table, or the rows of it for which ``where`` holds; in ``num_files`` equal files, if given."""

    spec: Contract
    namespace: str
    where: str | None = None
    num_files: int | None = None


@dataclass(frozen=True)
class _Replacement:
    """What a replace is to do: nothing where the present content ``stands``; else ``replaced`` goes for ``new``, which leaves
    ``after`` in the table."""

    part: _Slice
    stands: Written | None
    exists: bool
    replaced: Content
    new: Content
    after: Content

    def metadata(self, commit: Commit) -> str:
        return commit.metadata_of(self.part.spec.name, self.after)


class Store(Reader):
    """Delta tables that are read and written: every change is checked against the contract first."""

    def replace(
        self,
        table: str,
        namespace: str,
        rows: DataFrame | Made | Staged,
        commit: Commit,
        where: str | None = None,
        num_files: int | None = None,
        many: bool = False,
    ) -> Written:
        """Make the table (or its slice ``where``) hold exactly ``rows``; a result equal to the present one is not committed.

        Rows that tasks make are written by these where they can (``task_folder``), and checked as files. ``many``: see
        ``content.check``; of a frame nobody knows it but who made it.

        Raises:
            ContractError: types, nulls or keys break the contract; nothing is written.
        """
        spec, folder = contract(table), self.task_folder(table, namespace)
        if isinstance(rows, Made):
            rows = rows.frame if folder is None else stage(rows, spec, folder)
        if isinstance(rows, Staged):
            return self._replace_by_files(spec, namespace, rows, commit, where)
        with kept(conform(rows, spec)) as frame:
            return self._replace(_Slice(spec, namespace, where, num_files), frame, check(frame, spec, many), commit)

    def task_folder(self, table: str, namespace: str) -> str | None:
        """The table's folder where tasks may write its files themselves; None where only Spark can."""
        folder = local_path(self.spark, self.path(table, namespace))
        return None if folder is None else str(folder)

    def _replace_by_files(self, spec: Contract, namespace: str, staged: Staged, commit: Commit, where: str | None) -> Written:
        try:
            rows = conform(staged.frame(self.spark, spec), spec) if staged.files else self.empty(spec.name)
            new = check(rows, spec, many=staged.num_rows >= MANY_ROWS)
            plan = self._planned(_Slice(spec, namespace, where), rows, new)
            if plan.stands is not None:
                return plan.stands
            alone = where is None or not plan.replaced.rows  # else other rows may lie in the files of the slice
            path, whole = self.path(spec.name, namespace), where is None
            if not (staged.files and alone and add_files(self.spark, staged, path, spec, plan.metadata(commit), whole)):
                self._write(rows, plan, commit)
            return self._done(plan)
        finally:
            staged.remove_unless_handed_over()

    def _replace(self, part: _Slice, rows: DataFrame, new: Content, commit: Commit) -> Written:
        plan = self._planned(part, rows, new)
        if plan.stands is not None:
            return plan.stands
        self._write(rows, plan, commit)
        return self._done(plan)

    def _planned(self, part: _Slice, rows: DataFrame, new: Content) -> _Replacement:
        spec, namespace, where = part.spec, part.namespace, part.where
        last = self._last_commit(spec.name, namespace)
        present = Content(0, 0) if last is None else self._content(spec.name, namespace, last)
        replaced = present if where is None or last is None else content(self.read(spec.name, namespace).where(where))
        held = last is not None and self._holds(spec, namespace, rows, new, replaced, where)
        stands = None
        if last is not None and held and self._dealt(spec.name, namespace, new.rows, part.num_files):
            stands = Written(spec.name, last.version, new.rows, present.digest, False)
        return _Replacement(part, stands, last is not None, replaced, new, present - replaced + new)

    def _done(self, plan: _Replacement) -> Written:
        name = plan.part.spec.name
        return Written(name, self.version(name, plan.part.namespace), plan.new.rows, plan.after.digest, True)

    def _write(self, rows: DataFrame, plan: _Replacement, commit: Commit) -> None:
        part, options = plan.part, {"userMetadata": plan.metadata(commit)}
        if part.where is not None and plan.exists:
            options |= {"replaceWhere": part.where, "mergeSchema": "true"}  # a later version of us may know more columns
        else:
            options["overwriteSchema"] = "true"  # or other types
        if part.num_files is None:
            self._overwrite(rows, part.spec, part.namespace, options)
        else:
            with kept(shuffled(rows)) as ordered:
                options["delta.enableDeletionVectors"] = "false"  # Petastorm would not see them
                self._overwrite(in_equal_parts(ordered, part.num_files), part.spec, part.namespace, options)

    def _overwrite(self, rows: DataFrame, spec: Contract, namespace: str, options: dict[str, str]) -> None:
        if spec.change_feed:
            options = {**options, "delta.enableChangeDataFeed": "true"}  # of the table, from its first commit on
        writer = rows.write.format("delta").mode("overwrite").options(**options)
        writer.partitionBy(*spec.partition).save(self.path(spec.name, namespace))

    def merge(self, table: str, namespace: str, frame: DataFrame, commit: Commit, many: bool = False) -> Written:
        """Upsert by key. Only rows that are new or differ are written; none, and nothing is committed. ``many``: see ``replace``.

        Raises:
            ContractError: types, nulls or keys break the contract; nothing is written.
        """
        spec = contract(table)
        with kept(conform(frame, spec)) as rows:
            new = check(rows, spec, many)
            last = self._last_commit(table, namespace)
            if last is None:
                return self._replace(_Slice(spec, namespace), rows, new, commit)
            present = self._content(table, namespace, last)
            with kept(changes(rows, pruned(self.read(table, namespace), spec, rows), spec.key)) as changed:
                old = summed(changed.agg(*[part.alias(name) for name, part in hash_sums(F.col("_old_hash")).items()]).first())
                put = changed.select(*rows.columns)
                added = content(put)
                if not added.rows:
                    return Written(table, last.version, 0, present.digest, False)
                after = present - old + added
                upsert(self.spark, self.path(table, namespace), spec, put, commit.metadata_of(table, after))
                return Written(table, self.version(table, namespace), added.rows, after.digest, True)

    def remove(self, table: str, namespace: str, keys: DataFrame, commit: Commit) -> int:
        """Delete the rows that agree with one of ``keys`` in all of its columns; returns how many. None, and nothing is
        committed."""
        last = self._last_commit(table, namespace)
        if last is None:
            return 0
        wanted, rows = F.broadcast(keys.distinct()), self.read(table, namespace)
        gone = content(rows.join(wanted, keys.columns, "left_semi").select(*rows.columns))
        if gone.rows:
            after = self._content(table, namespace, last) - gone
            delete(self.spark, self.path(table, namespace), keys.distinct(), commit.metadata_of(table, after))
        return gone.rows

    def append(self, table: str, namespace: str, frame: DataFrame, commit: Commit, anew: bool = False, **facts: Any) -> int:
        """Add rows to a log (``runs``, ``published``, ``cooccurrence_deltas``), or with ``anew`` put them in the place of all
        that is there, in one commit; returns its version. ``facts`` go into the commit, ``last_facts`` finds them again.

        Raises:
            ContractError: columns or types break the contract; nothing is written.
        """
        rows = conform(frame, contract(table))
        writer = rows.write.format("delta").mode("overwrite" if anew else "append")
        writer.option("userMetadata", commit.metadata(table=table, **facts)).save(self.path(table, namespace))
        return self.version(table, namespace)

    def _holds(self, spec: Contract, namespace: str, rows: DataFrame, new: Content, part: Content, where: str | None) -> bool:
        """Whether the table (or slice) already holds these rows: to the bit, or by key within the tolerance."""
        if part == new:
            return True
        if part.rows != new.rows or not spec.key:
            return False
        present = self.read(spec.name, namespace)
        return changes(rows, present if where is None else present.where(where), spec.key).isEmpty()

    def _dealt(self, table: str, namespace: str, rows: int, num_files: int | None) -> bool:
        """Whether the rows lie in as many files as wanted; fewer rows than files make one file each, and Spark adds an empty one
        where its first task has none."""
        if num_files is None:
            return True
        found = len(self.files(table, namespace))
        return found == num_files if rows >= num_files else found in (rows, rows + 1)


@contextmanager
def kept(frame: DataFrame) -> Iterator[DataFrame]:
    """The frame, computed once while it is checked and written."""
    frame = frame.persist()
    try:
        yield frame
    finally:
        frame.unpersist()


def slice_of(**values: str) -> str:
    """A ``where`` for ``replace`` out of checked parts: ``slice_of(as_of=..., run_id=...)``.

    Raises:
        ContractError: a value holds anything but letters, digits and ``_-.:+ ``.
    """
    for name, value in values.items():
        if not re.fullmatch(r"[A-Za-z0-9_.:+ -]+", value):
            raise ContractError(f"slice by {name}", repr(value), "letters, digits, '_', '-', '.', ':', '+' and spaces")
    return " AND ".join(
        f"{name} = TIMESTAMP'{value}'" if name == "as_of" else f"{name} = '{value}'" for name, value in values.items()
    )


__all__ = ["Commit", "Store", "Written", "kept", "slice_of"]
