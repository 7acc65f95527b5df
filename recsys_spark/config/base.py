"""The strict base of every settings class: unknown keys fail and name the nearest known one."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys_spark.errors import ConfigError


class Settings(BaseModel):
    """Frozen, typed settings of one component."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def beside(path: str, name: str) -> Path:
    """What lies beside a folder of this machine; ``path`` may be a ``file:`` URI."""
    return Path(re.sub("^file:(//)?", "", path)).absolute().parent / name


def scheme_of(path: str) -> str:
    """``s3a`` of ``s3a://bucket/folder``, ``file`` of a path on this machine."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", path)
    return found[1] if found else "file"


def nearest(word: str, known: list[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest known word, else an empty string."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(sorted(known))}"


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Field names of the settings class that holds the key at ``location``."""
    current: Any = model
    for part in location[:-1]:
        field = current.model_fields.get(part) if hasattr(current, "model_fields") else None
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return list(getattr(current, "model_fields", {}))


def _keys_of(data: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Without what pydantic adds to say which of several types it tried."""
    kept: list[int | str] = []
    for part in location:
        if not isinstance(data, dict | list):
            break
        kept.append(part)
        data = data.get(part) if isinstance(data, dict) else (data[part] if isinstance(part, int) else None)
    return tuple(kept)


def validate(model: type[BaseModel], data: dict[str, Any], where: str) -> Any:
    """Build ``model`` from ``data``.

    Raises:
        ConfigError: the first fault, with the section, what was found and what to write.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        every = error.errors()
        # a key that is misspelt is unknown and, where it is needed, missing too: the first says more
        first = next((one for one in every if one["type"] == "extra_forbidden"), every[0])
        location = _keys_of(data, first["loc"])
        place = f"{where} [{'.'.join(str(part) for part in location[:-1]) or 'top level'}]"
        key = str(location[-1]) if location else ""
        if first["type"] == "extra_forbidden":
            hint = nearest(key, _known_keys(model, location))
            raise ConfigError(place, f"unknown key '{key}'", "a known key", hint) from None
        if first["type"] == "missing":
            raise ConfigError(place, f"key '{key}' is missing", do=f"add '{key} = ...'") from None
        if first["type"] == "value_error":  # raised by a class about its keys together, and says itself what to do
            whole = isinstance(first["input"], dict)
            section = ".".join(str(part) for part in (location if whole else location[:-1]))
            raise ConfigError(f"{where} [{section}]" if section else where, str(first["ctx"]["error"])) from None
        raise ConfigError(place, f"'{key}' is {first['input']!r}", first["msg"].removeprefix("Input should be ")) from None
