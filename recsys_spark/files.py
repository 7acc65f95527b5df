"""Files that appear whole or not at all: written aside under a name of their own, then renamed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a file beside ``path`` and rename it over ``path``; what it left is removed where it fails.

    Two writers of one path do not meet: the last rename wins. Folders on the way are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """``write_whole`` of a text in UTF-8."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_whole(path, write)


def write_json(path: Path, document: Any) -> None:
    """``write_whole`` of a JSON document, keys in order."""
    write_text(path, json.dumps(document, indent=1, sort_keys=True))
