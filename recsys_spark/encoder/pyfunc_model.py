"""The model as MLflow loads it (models from code): texts or histories in, vectors out, without Spark or this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from recsys_spark.config.moments import Part, moment_of
from recsys_spark.encoder.attributes import values_of
from recsys_spark.encoder.packaged_model import PackagedModel, load_model
from recsys_spark.errors import InputError

BATCH = 512
_WHERE = "predict"


class EncoderModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """``predict(model_input, params={"tower": "item" | "user"})`` gives one unit vector (list of float) for each row.

    item: a DataFrame with ``text`` and optionally ``item_id``, ``category`` and ``attributes`` (a dict, values of one
    attribute joined by "|"), or a list of strings or of such rows as dicts.
    user: a DataFrame with ``history``, or a list of histories; a history is a list of item texts or of such rows, oldest
    first. A history of no item gives the zero vector. A row of a history may also say what the model is told of moments:
    ``gap_seconds`` (since the item before), ``hour`` (0-23), ``weekday`` (1 = Sunday), ``context`` (a dict, that also holds what
    was searched for).

    ``params={"tower": "outcome"}`` gives a list of one number for each row: the probability that an event of that user with
    that item turns out to be of the kind the model was trained for (``pairs.outcomes``). A row has ``history`` and the columns
    of an item.
    """

    def load_context(self, context: Any) -> None:
        self._model = load_model(Path(context.artifacts["model"]))
        self._names = self._model.settings.attributes

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[list[float]]:
        """Vectors, or probabilities, for each row, in order.

        Raises:
            InputError: an unknown tower, input without the column that the tower reads, or a model without an outcome head.
        """
        tower = (params or {}).get("tower", "item")
        if tower == "item":
            return list(_item_vectors(self._model, _items(_rows(model_input), self._names)).tolist())
        if tower not in ("user", "outcome"):
            raise InputError(_WHERE, f"tower {tower!r}", "'item', 'user' or 'outcome'", "params={'tower': 'item'}")
        rows = _rows(model_input)
        users = _user_vectors(self._model, _histories(rows, self._names, self._model.settings.moments))
        if tower == "user":
            return list(users.tolist())
        return list(self._model.outcome_chances(users, _item_vectors(self._model, _items(rows, self._names)))[:, None].tolist())


Item = tuple[str, str | None, tuple[str, ...]]  # text, item_id, name=value of its attributes
Event = tuple[Item, int]  # an item of a history, and its moment


def _rows(model_input: Any) -> list[Any]:
    """A DataFrame as a list of dicts, anything else as a list."""
    if hasattr(model_input, "to_dict") and hasattr(model_input, "columns"):
        rows: list[Any] = model_input.to_dict("records")
        return rows
    return [model_input] if isinstance(model_input, str | Mapping) else list(model_input)


def _item(value: Any, names: Sequence[str]) -> Item:
    if isinstance(value, str):
        return value, None, ()
    if not isinstance(value, Mapping) or not {"text", "item_id"} & set(value):
        raise InputError(_WHERE, f"an item that is {type(value).__name__}", "a text, or a row with 'text' (and 'item_id')")
    attributes = value.get("attributes")
    found = values_of(_text(value.get("category")), attributes if isinstance(attributes, Mapping) else None, names)
    return _text(value.get("text")) or "", _text(value.get("item_id")), tuple(found)


def _text(value: Any) -> str | None:
    missing = value is None or (isinstance(value, float) and np.isnan(value))
    return None if missing else str(value)


def _items(rows: Sequence[Any], names: Sequence[str]) -> list[Item]:
    return [_item(row, names) for row in rows]


def _histories(rows: Sequence[Any], names: Sequence[str], parts: Sequence[Part]) -> list[list[Event]]:
    found = [row.get("history", row) if isinstance(row, Mapping) else row for row in rows]
    for history in found:
        if isinstance(history, str | Mapping):
            raise InputError(_WHERE, "a row without a history", "a column 'history' with lists of items, oldest first")
    given = [[] if history is None else list(history) for history in found]
    return [[(_item(row, names), _moment(row, parts)) for row in history] for history in given]


def _moment(row: Any, parts: Sequence[Part]) -> int:
    return moment_of(parts, row) if isinstance(row, Mapping) else 0


def _item_vectors(model: PackagedModel, items: Sequence[Item]) -> Any:
    if not items:
        return np.zeros((0, model.settings.dimension), dtype=np.float32)
    texts, ids, values = zip(*items, strict=True)
    return model.encode_items(texts, ids, values)


def _user_vectors(model: PackagedModel, histories: Sequence[Sequence[Event]]) -> Any:
    """Each distinct item is encoded once, then the last ``max_history`` of each history go through the user tower."""
    kept = [list(history)[-model.settings.max_history :] for history in histories]
    row_of = {item: row for row, item in enumerate(dict.fromkeys(item for history in kept for item, _ in history))}
    items = _item_vectors(model, list(row_of))
    vectors = np.zeros((len(kept), model.settings.dimension), dtype=np.float32)
    for start in range(0, len(kept), BATCH):
        part = kept[start : start + BATCH]
        length = max((len(history) for history in part), default=0)
        rows = np.full((len(part), length), -1, dtype=np.int64)
        moments = np.zeros((len(part), length), dtype=np.int64)
        for number, history in enumerate(part):
            if history:
                rows[number, length - len(history) :] = [row_of[item] for item, _ in history]
                moments[number, length - len(history) :] = [moment for _, moment in history]
        vectors[start : start + BATCH] = model.encode_histories(items, rows, moments)
    return vectors


mlflow.models.set_model(EncoderModel())
