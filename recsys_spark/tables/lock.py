"""One writer per namespace: a lock file that falls when its holder on this host is dead, and in a day where that is another."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys_spark.errors import LockError
from recsys_spark.tables.store import Store

LIFETIME_SECONDS = 24 * 3600.0  # of one whose holder is on another host: longer than any night


def _stale(held: dict[str, Any]) -> bool:
    """Whether nobody holds it any more: on this host the process is asked for, on others time must pass."""
    if held.get("host") != socket.gethostname():
        return bool(held.get("expires_at", 0.0) < time.time())
    try:
        os.kill(int(held["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _started(int(held["pid"])) != held.get("started")


def _started(pid: int) -> str:
    """Start time of a process, so that a reused pid is not taken for the holder (empty where /proc is absent)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


@contextmanager
def namespace_lock(store: Store, namespace: str, lifetime_seconds: float = LIFETIME_SECONDS) -> Iterator[None]:
    """Hold the namespace while the block runs. Works on any Hadoop file system whose create is atomic.

    Raises:
        LockError: another live writer holds it; names the file.
    """
    jvm: Any = store.spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(f"{store.root}/_locks/{namespace.replace('/', '__')}.json")
    files = path.getFileSystem(store.spark._jsc.hadoopConfiguration())
    files.mkdirs(path.getParent())
    mine = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": _started(os.getpid()),
        "expires_at": time.time() + lifetime_seconds,
        "token": secrets.token_hex(8),
    }
    _take(jvm, files, path, mine, namespace)
    try:
        yield
    finally:
        if (_read(jvm, files, path) or {}).get("token") == mine["token"]:  # else it has lapsed, and is somebody else's now
            files.delete(path, False)


def _take(jvm: Any, files: Any, path: Any, mine: dict[str, Any], namespace: str) -> None:
    for _ in range(2):
        try:
            stream = files.create(path, False)
        except Exception as error:  # py4j wraps FileAlreadyExistsException
            held = _read(jvm, files, path)
            if held is not None and not _stale(held):
                who = f"held by process {held.get('pid')} on {held.get('host')}"
                do = f"wait for it, or stop it; if its host is gone, delete {path}"
                raise LockError(f"namespace '{namespace}'", who, "one writer", do) from error
            files.delete(path, False)
            continue
        stream.write(bytearray(json.dumps(mine).encode()))
        stream.close()
        return
    raise LockError(f"namespace '{namespace}'", "taken by another writer just now", "one writer", "wait for it")


def _read(jvm: Any, files: Any, path: Any) -> dict[str, Any] | None:
    """Content of the lock; None when it is unreadable, as after a kill in the middle of its write."""
    try:
        stream = files.open(path)
        try:
            held = json.loads(jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()
    except Exception:  # gone, empty or half-written
        return None
    return held if isinstance(held, dict) else None
