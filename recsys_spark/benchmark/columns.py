"""Columns of a Parquet file brought to one type each, whatever wrote them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_DAY = 86_400_000_000  # microseconds
_WHOLE_BELOW = float(1 << 53)
# a number is seconds up to the year 5138, then milliseconds, microseconds, and else nanoseconds
_UNITS = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1))


def ids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts; whole floats, as pandas leaves ids where one is missing, without a point."""
    column = _plain(column)
    if pa.types.is_floating(column.type):
        return pc.if_else(_is_whole(column), _whole(column).cast(pa.string()), column.cast(pa.string()))
    return column if pa.types.is_binary(column.type) else column.cast(pa.string())  # what is binary is refused by ingest


def times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Microseconds in UTC: of times of any unit, of numbers by their size, of texts of digits; other texts and days stay.

    Numbers that begin at 0 or below are no dates but distances: they are moved to begin a day after 1970.
    """
    column = _plain(column)
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    if pa.types.is_string(column.type):
        if not pc.all(pc.match_substring_regex(column, r"^\s*-?\d+(\.\d+)?\s*$"), min_count=1).as_py():
            return column
        column = pc.utf8_trim_whitespace(column).cast(pa.float64())
    if not _is_number(column.type):
        return column
    exact = pa.types.is_integer(column.type)
    column = column.cast(pa.int64()) if exact else _finite(column.cast(pa.float64()))
    largest = pc.max(column).as_py()
    factor = next((f for below, f in _UNITS if largest is None or largest < below), None)
    if exact:
        micros = pc.divide(column, 1_000) if factor is None else pc.multiply(column, factor)
    else:
        micros = pc.round(pc.multiply(column, 0.001 if factor is None else float(factor))).cast(pa.int64())
    first = pc.min(micros).as_py()
    if first is not None and first <= 0:
        micros = pc.add(micros, _DAY - first)
    return micros.cast(pa.timestamp("us", tz="UTC"))


def positions(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers from 0, where that is what they are."""
    column = _plain(column)
    if pa.types.is_string(column.type) or not _is_number(column.type):
        return column
    if not pa.types.is_integer(column.type):
        column = _finite(column.cast(pa.float64()))
        if not pc.all(_is_whole(column), min_count=0).as_py():
            return column
        column = _whole(column)
    column = column.cast(pa.int64())
    first = pc.min(column).as_py()
    return pc.subtract(column, first) if first is not None and first < 0 else column


def numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Finite doubles; what is none is missing."""
    column = _plain(column)
    if pa.types.is_string(column.type):
        text = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.match_substring_regex(text, r"^[-+]?\d+(\.\d*)?$"), text, pa.scalar(None, pa.string()))
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if not pa.types.is_string(column.type) and not _is_number(column.type):
        return pa.chunked_array([pa.nulls(len(column), pa.float64())])
    return _finite(column.cast(pa.float64()))


def text_type(kind: pa.DataType) -> pa.DataType | None:
    """What a column of texts, or of lists of them, is read as; None for any other."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.string()) if _is_text(kind.value_type) else None
    if pa.types.is_dictionary(kind):
        return text_type(kind.value_type)
    return pa.string() if _is_text(kind) else None


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _finite(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))


def _is_whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    small = pc.less(pc.abs(column), _WHOLE_BELOW)
    return pc.and_(pc.equal(pc.floor(column), column), small)


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers; null where there is another one."""
    return pc.if_else(_is_whole(column), column, pa.scalar(None, column.type)).cast(pa.int64())
