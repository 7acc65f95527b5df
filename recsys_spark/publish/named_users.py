"""The users that a command is about: named on the command line, or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recsys_spark.errors import InputError


def named_users(user_ids: Sequence[str], file: Path | None) -> list[str]:
    """Both together, each once, in this order. Lines are taken as they are, but for their ends; empty ones are left out.

    Raises:
        InputError: no such file, or nobody is named.
    """
    listed: list[str] = []
    if file is not None:
        if not file.is_file():
            raise InputError(f"--file {file}", "no such file", "a text file with one user a line")
        listed = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line]
    users = list(dict.fromkeys([*user_ids, *listed]))
    if not users:
        raise InputError("forget", "nobody is named", "user ids, or --file with one a line")
    return users
