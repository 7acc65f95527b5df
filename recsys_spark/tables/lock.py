"""One writer per namespace: a lock file that its holder renews, and that falls with a dead holder on this host.

Of a holder elsewhere only its renewals tell that it lives. Who comes meanwhile waits for one: a night that is started again
after its machine was lost goes on as soon as the lock has lapsed.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recsys_spark.errors import LockError
from recsys_spark.log import get_logger
from recsys_spark.tables.store import Store

log = get_logger(__name__)
LIFETIME_SECONDS = 900.0  # without being renewed; a holder that was killed on another host blocks no longer
RENEWED_EVERY_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 5.0
_HALF_WRITTEN_SECONDS = 60.0  # a file that cannot be read may be about to be written


def _stale(held: dict[str, Any]) -> bool:
    """Whether nobody holds it any more: on this host the process is asked for, on others time must pass."""
    if not _is_near(held):
        return bool(held.get("expires_at", 0.0) < time.time())
    try:
        os.kill(int(held["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _started(int(held["pid"])) != held.get("started")


def _is_near(held: dict[str, Any]) -> bool:
    """Whether its process can be asked for: of two containers on one host neither sees the other's."""
    return (held.get("host"), held.get("pids")) == (socket.gethostname(), _process_ids())


def _process_ids() -> str:
    """The name space that process ids are from (empty where /proc is absent)."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start time of a process, so that a reused pid is not taken for the holder (empty where /proc is absent)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


@contextmanager
def namespace_lock(
    store: Store,
    namespace: str,
    lifetime_seconds: float = LIFETIME_SECONDS,
    renewed_every_seconds: float = RENEWED_EVERY_SECONDS,
    look_every_seconds: float = _LOOK_EVERY_SECONDS,
) -> Iterator[None]:
    """Hold the namespace while the block runs, for as long as it takes. Works on any Hadoop file system whose create is atomic.

    Raises:
        LockError: another live writer holds it; names the file. Of one elsewhere that is known once it renews.
    """
    jvm: Any = store.spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(f"{store.root}/_locks/{namespace.replace('/', '__')}.json")
    files = path.getFileSystem(store.spark._jsc.hadoopConfiguration())
    files.mkdirs(path.getParent())
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "pids": _process_ids(), "started": _started(os.getpid())}
    mine["token"] = secrets.token_hex(8)

    def written() -> bytearray:
        return bytearray(json.dumps({**mine, "expires_at": time.time() + lifetime_seconds}).encode())

    def is_mine() -> bool:
        return (_read(jvm, files, path) or {}).get("token") == mine["token"]  # else it has lapsed, and is somebody else's now

    def renew() -> None:
        while not ended.wait(renewed_every_seconds):
            with suppress(Exception):  # of a file system that fails for a while: there is another try
                if is_mine():
                    _write(files.create(path, True), written())

    _await_silent_holder(lambda: _read(jvm, files, path), namespace, look_every_seconds)
    _take(jvm, files, path, written, namespace)
    ended = threading.Event()
    renewing = threading.Thread(target=renew, name=f"lock of {namespace}", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        if is_mine():
            files.delete(path, False)


def _await_silent_holder(read: Callable[[], dict[str, Any] | None], namespace: str, look_every_seconds: float) -> None:
    """Wait while a holder elsewhere neither renews its lock nor lets go of it: it has a while until it lapses."""
    first = read()
    if first is None or _is_near(first) or _stale(first):
        return
    seconds = round(first.get("expires_at", 0.0) - time.time())
    holder = f"process {first.get('pid')} on {first.get('host')}"
    log.warning(
        "the lock is held elsewhere: waiting until it is renewed or lapses", namespace=namespace, by=holder, seconds=seconds
    )
    held: dict[str, Any] | None = first
    while held is not None and held == first and not _stale(held):
        time.sleep(look_every_seconds)
        held = read()


def _take(jvm: Any, files: Any, path: Any, written: Callable[[], bytearray], namespace: str) -> None:
    for _ in range(2):
        try:
            stream = files.create(path, False)
        except Exception as error:  # py4j wraps FileAlreadyExistsException
            held = _read(jvm, files, path)
            if not _stale(held) if held is not None else _young(files, path):
                who = "just taken" if held is None else f"held by process {held.get('pid')} on {held.get('host')}"
                do = f"wait for it, or stop it; if its host is gone, delete {path}"
                raise LockError(f"namespace '{namespace}'", who, "one writer", do) from error
            files.delete(path, False)
            continue
        _write(stream, written())
        return
    raise LockError(f"namespace '{namespace}'", "taken by another writer just now", "one writer", "wait for it")


def _write(stream: Any, content: bytearray) -> None:
    stream.write(content)
    stream.close()


def _young(files: Any, path: Any) -> bool:
    """Whether a file was written just now; False when it is gone."""
    try:
        written_s = files.getFileStatus(path).getModificationTime() / 1000
    except Exception:  # py4j wraps FileNotFoundException
        return False
    return bool(time.time() - written_s < _HALF_WRITTEN_SECONDS)


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
