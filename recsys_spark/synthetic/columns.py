"""From numbers to the columns that files have: ids, words, times, and what the flaws make of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_spark.synthetic import flaws
from recsys_spark.synthetic.catalogue import Floats, Ints
from recsys_spark.synthetic.choices import DEVICES, EVENT_TYPES
from recsys_spark.synthetic.settings import LogFormat, SyntheticSettings


@dataclass(frozen=True)
class Rows:
    """R rows as numbers, all ``[R]``.

    Args:
        user, item: their numbers.
        number: of the event among the user's.
        kind: place in ``EVENT_TYPES``; ``device``: in ``DEVICES``.
        ts_ms: milliseconds after the start of the log.
        value: NaN where there is none.
        flaw: what is to be done to the row (see ``flaws.draw_flaws``).
    """

    user: Ints
    number: Ints
    item: Ints
    kind: Ints
    ts_ms: Ints
    value: Floats
    device: Ints
    flaw: Ints


def ts_type(log_format: LogFormat) -> Any:
    """Arrow type of ``ts``: text where it has to hold what is no time."""
    return pa.timestamp("us", tz="UTC") if log_format == "parquet" else pa.string()


def event_schema(log_format: LogFormat) -> Any:
    """Arrow schema of the events."""
    text = [(name, pa.string()) for name in ("event_id", "user_id", "item_id", "event_type")]
    return pa.schema([*text, ("ts", ts_type(log_format)), ("value", pa.float64()), ("device", pa.string())])


def arrow_batch(settings: SyntheticSettings, rows: Rows) -> Any:
    """The rows as ``event_schema``, flaws done."""
    user = pa.array(rows.user).cast(pa.string())
    number = pa.array(rows.number).cast(pa.string())
    columns = [
        pc.binary_join_element_wise(pc.binary_join_element_wise("e", user, ""), number, "-"),
        numbered_ids("u", rows.user, rows.flaw == flaws.MISSING_USER.code),
        _item_ids(rows),
        pa.array(EVENT_TYPES).take(pa.array(rows.kind)),
        _times(settings, rows),
        _values(rows),
        pa.array(DEVICES).take(pa.array(rows.device)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=event_schema(settings.format))


def numbered_ids(letter: str, numbers: Ints, missing: Any = None) -> Any:
    """``letter`` and number, null where ``missing``: ``[R]`` strings."""
    return pc.binary_join_element_wise(letter, pa.array(numbers, mask=missing).cast(pa.string()), "")


def _item_ids(rows: Rows) -> Any:
    ids = numbered_ids("i", rows.item, rows.flaw == flaws.MISSING_ITEM.code)
    unknown = np.flatnonzero(rows.flaw == flaws.ITEM_UNKNOWN.code)
    strange = pc.binary_join_element_wise(flaws.UNKNOWN_ITEM, ids.take(pa.array(unknown)), "")
    return pc.replace_with_mask(ids, pa.array(rows.flaw == flaws.ITEM_UNKNOWN.code), strange)


def _times(settings: SyntheticSettings, rows: Rows) -> Any:
    start_ms = round(datetime.combine(settings.start, time(), UTC).timestamp() * 1_000)
    micros = (rows.ts_ms + start_ms) * 1_000
    micros[rows.flaw == flaws.TS_ZERO.code] = 0
    micros[rows.flaw == flaws.TS_FUTURE.code] = flaws.FAR_FUTURE_US
    if settings.format == "parquet":
        return pa.array(micros).cast(ts_type(settings.format))
    text = pa.array(micros // 1_000).cast(pa.timestamp("ms")).cast(pa.string())
    return pc.if_else(pa.array(rows.flaw == flaws.TS_NO_TIME.code), flaws.NO_TIME, pc.binary_join_element_wise(text, "Z", ""))


def _values(rows: Rows) -> Any:
    value = np.where(rows.flaw == flaws.VALUE_NEGATIVE.code, flaws.NEGATIVE, rows.value)
    return pa.array(value, mask=np.isnan(value))
