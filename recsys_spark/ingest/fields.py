"""From our column names to the source's: present or a clear error, missing values by rule, text made into types."""

from __future__ import annotations

from collections.abc import Collection

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DoubleType,
    FloatType,
    MapType,
    StringType,
    StructType,
)

from recsys_spark.config.base import nearest
from recsys_spark.config.ingest import Source
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.ingest.names import literal_pattern, quoted
from recsys_spark.ingest.read import source_columns

REJECT = "reject"
_IDS, _REPLACED = ("user_id", "item_id"), "\ufffd"
_NUMBERS = ("double", "bigint", "int", "smallint", "tinyint")  # a float's or a decimal's double is that of its text
_WHOLE_BELOW = float(1 << 53)  # a double holds every whole number up to here
_BETWEEN_LISTED = ", "  # where a list of texts is read as one


class Fields:
    """The mapped columns of one source.

    Args:
        frame: as ``read_source`` returns it.
        source: its settings.
        where: how errors call it, e.g. ``"[ingest.events] log.csv"``.
        also: source columns used beside the mapped ones (attributes, context, template).
        lists: source columns that may hold lists of texts.

    Raises:
        InputError: a column is absent (names the nearest), or holds a type that has no text (map, struct, most arrays).
        ConfigError: a rule for missing values names a column that is not mapped.
    """

    def __init__(
        self, frame: DataFrame, source: Source, where: str, also: Collection[str] = (), lists: Collection[str] = ()
    ) -> None:
        self._columns, self._missing, self._where, self._lists = dict(source.columns), dict(source.missing), where, lists
        self._is_json = source.format == "jsonl"
        self._types = {field.name: field.dataType for field in frame.schema}
        self._found = source_columns(frame)
        for name in self._missing:
            if name not in self._columns:
                raise ConfigError(f"{where} missing", f"'{name}' is not mapped", do=nearest(name, list(self._columns)))
        for column in [*self._columns.values(), *also]:
            self._check(column)

    def _check(self, column: str) -> None:
        if column not in self._found:
            found = ", ".join(self._found)
            raise InputError(self._where, f"no column '{column}'; columns found: {found}", do=nearest(column, self._found))
        kind, listed = self._types[column], column in self._lists
        if listed and _is_list_of_texts(kind):
            return
        if isinstance(kind, ArrayType | MapType | StructType | BinaryType):
            wanted = "text, a list of texts, a number or a time" if listed else "text, a number or a time"
            raise InputError(self._where, f"column '{column}' is {kind.simpleString()}", wanted)

    def is_mapped(self, name: str) -> bool:
        return name in self._columns

    def type_of(self, name: str) -> str:
        """Spark's simple name of the source column's type; ``string`` for all of CSV and JSON."""
        return self._types[self._columns[name]].simpleString()

    def raw(self, name: str) -> Column:
        """The source column as it is."""
        return F.col(quoted(self._columns[name]))

    def exact(self, name: str) -> Column:
        """Text as the source has it; blank is missing, and takes the default where one is set. Null when unmapped."""
        if not self.is_mapped(name):
            return F.lit(None).cast("string")
        return self._with_default(name, filled(self._as_text(self._columns[name])))

    def is_missing(self, name: str) -> Column:
        """Whether ``exact`` is null; a number or a time is not written out for that."""
        plain = self.is_mapped(name) and not self._is_text(name) and self._default(name) is None
        return self.raw(name).isNull() if plain else self.exact(name).isNull()

    def number(self, name: str) -> Column:
        """A double; null where missing, or where the text is none. What is a number already is not read from its text."""
        plain = self.is_mapped(name) and self.type_of(name) in _NUMBERS and self._default(name) is None
        return self.raw(name).cast("double") if plain else number(self.text(name))

    def _is_text(self, name: str) -> bool:
        kind = self._types[self._columns[name]]
        return isinstance(kind, StringType) or _is_list_of_texts(kind)

    def text(self, name: str) -> Column:
        """Like ``exact``, without white space at the ends."""
        return F.trim(self.exact(name))

    def word(self, name: str) -> Column:
        """A template's field: one of our names, else a source column."""
        return self.text(name) if self.is_mapped(name) else F.trim(filled(self._as_text(name)))

    def values(self, column: str, separator: str | None = None) -> Column:
        """The texts in a source column, trimmed, without blank ones: those of its list, else of its text where it is cut at
        ``separator``. Null where the column is."""
        value = F.col(quoted(column))
        if _is_list_of_texts(self._types[column]):
            parts = value
        else:
            text = value.cast("string")
            parts = F.array(text) if separator is None else F.split(text, literal_pattern(separator))
            parts = F.coalesce(self._json_list(column), parts) if self._has_json_lists(column) else parts
        return F.filter(F.transform(parts, lambda part: F.trim(part)), lambda part: F.length(part) > 0)

    def _as_text(self, column: str) -> Column:
        if _is_list_of_texts(self._types[column]):
            return F.array_join(self.values(column), _BETWEEN_LISTED)
        value = F.col(quoted(column))
        text = value.cast("string")
        if self._has_json_lists(column):
            return F.when(self._json_list(column).isNotNull(), F.array_join(self.values(column), _BETWEEN_LISTED)).otherwise(text)
        if isinstance(self._types[column], FloatType | DoubleType):  # as pandas leaves ids where one is missing: 7, not 7.0
            whole = (value == F.floor(value)) & (F.abs(value) < _WHOLE_BELOW)
            return F.when(whole, value.cast("bigint").cast("string")).otherwise(text)
        return text

    def _has_json_lists(self, column: str) -> bool:
        """Whether texts may be lists: of JSON lines every value is read as the text that stands there."""
        return self._is_json and column in self._lists

    def _json_list(self, column: str) -> Column:
        text = F.col(quoted(column))
        return F.when(text.startswith("["), F.from_json(text, "array<string>"))

    def rejected(self, name: str) -> Column:
        """True where a value is missing and the rule says to reject the row."""
        if self._missing.get(name) != REJECT:
            return F.lit(False)
        return self.is_missing(name)

    def boolean(self, name: str) -> Column:
        """true/false, t/f, yes/no, y/n, 1/0; null where missing or something else."""
        if self.is_mapped(name) and isinstance(self._types[self._columns[name]], BooleanType):
            return self._with_default_boolean(name)
        return self.text(name).try_cast("boolean")

    def reject_reasons(self, except_for: tuple[str, ...] = ()) -> list[tuple[Column, str]]:
        """``(condition, reason)`` of every rule that rejects, but for columns that are required anyway; and of ids with signs
        that could not be decoded, which would make one user of several."""
        rules = [name for name, rule in self._missing.items() if rule == REJECT and name not in except_for]
        ids = [name for name in _IDS if self.is_mapped(name) and self._is_text(name)]
        broken = [(self.exact(name).contains(_REPLACED), f"{name} is not in the encoding of the file") for name in ids]
        return [*((self.rejected(name), f"missing {name}") for name in rules), *broken]

    def _with_default(self, name: str, value: Column) -> Column:
        default = self._default(name)
        return value if default is None else F.coalesce(value, F.lit(default))

    def _with_default_boolean(self, name: str) -> Column:
        default = self._default(name)
        return self.raw(name) if default is None else F.coalesce(self.raw(name), F.lit(default).try_cast("boolean"))

    def _default(self, name: str) -> str | None:
        """What a missing value becomes; None where it stays missing, or rejects its row."""
        rule = self._missing.get(name)
        return None if rule == REJECT else rule


def _is_list_of_texts(kind: DataType) -> bool:
    return isinstance(kind, ArrayType) and isinstance(kind.elementType, StringType)


def filled(text: Column) -> Column:
    """``text``, or null where it is blank."""
    return F.when(F.length(F.trim(text)) > 0, text)


def number(text: Column) -> Column:
    """A double, NaN and infinities included; null where the text is none (Java's ``3d`` and ``3f`` are none)."""
    return F.when(~text.rlike("[0-9.][dDfF]$"), text.try_cast("double"))
