"""On what a figure was measured, and the peak memory of every process behind it."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = (
    "pyspark",
    "delta-spark",
    "torch",
    "numpy",
    "scipy",
    "pyarrow",
    "petastorm",
    "transformers",
    "sentence-transformers",
)
_PROC = Path("/proc")
_SAMPLE_SECONDS = 0.5
_RESIDENT, _OWN = "VmHWM", "RssAnon"  # as the kernel calls them


def num_cores() -> int:
    """Cores this process may use: what Spark's ``local[*]`` and torch are given."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What tells one machine's figures from another's."""
    import torch  # late: most rows' processes start before they need it

    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"cpus": num_cores(), "processor": _processor(), "memory_gib": _memory_gib(), "system": platform.system(), **gpu}


def _processor() -> str:
    info = _PROC / "cpuinfo"
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def library_versions() -> dict[str, str]:
    """Of what is installed, with Python's own."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _status(pid: int) -> dict[str, str]:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:  # it has ended
        return {}
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines if ":" in line)}


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (parent := _status(int(entry.name)).get("PPid")):
            found.setdefault(int(parent), []).append(int(entry.name))
    return found


def _family(root: int) -> list[int]:
    """The process and all below it."""
    children, pids = _children(), [root]
    for pid in pids:  # grows while it is walked
        pids += children.get(pid, [])
    return pids


def _kind(pid: int) -> str:
    """``driver``, ``jvm``, ``python worker`` (which runs tasks of Spark's), ``training rank`` or ``other``."""
    if pid == os.getpid():
        return "driver"
    try:
        command = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has ended
        return "other"
    if any(f"-m {daemon}" in command for daemon in ("recsys_spark.worker_daemon", "pyspark.daemon")):
        return "python worker"
    if "recsys_spark.training.run" in command:
        return "training rank"
    # not by the name in its status: a thread of the JVM that starts a process lends it its own for a moment
    return "jvm" if Path(command.split(" ", 1)[0]).name == "java" else "other"


class PeakMemory:
    """The largest resident size of this process and all below it while the block is open, in MiB.

    The kernel's own high-water mark of each process is read twice a second, so a process that lives shorter may be
    missed, but no peak of one that lives longer. The marks are set back at the start, where the system allows it. What of it is
    no file that others map too has no such mark: the largest that was seen counts.
    """

    def __init__(self) -> None:
        self._peak_kib: dict[str, dict[int, int]] = {_RESIDENT: {}, _OWN: {}}
        self._kinds: dict[int, str] = {}
        self._stop = threading.Event()

    def by_kind(self, mark: str = _RESIDENT) -> dict[str, int]:
        """The largest process of each kind, in MiB."""
        found: dict[str, int] = {}
        for pid, kib in self._peak_kib[mark].items():
            kind = self._kinds[pid]
            found[kind] = max(found.get(kind, 0), round(kib / 1024))
        return dict(sorted(found.items()))

    def own_by_kind(self) -> dict[str, int]:
        """The same without pages of files."""
        return self.by_kind(_OWN)

    def sample(self) -> None:
        """Read the marks of all processes now."""
        for pid in _family(os.getpid()):
            status = _status(pid)
            for mark, peaks in self._peak_kib.items():
                size = int(status.get(mark, "0").split()[0])
                if size > peaks.get(pid, 0):
                    peaks[pid], self._kinds[pid] = size, _kind(pid)

    def watch(self) -> None:
        """Sample until told to stop."""
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.sample()

    def stop(self) -> None:
        """End the watching, after a last look."""
        self._stop.set()
        self.sample()


@contextlib.contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Watch this process and its children (Linux; elsewhere nothing is found)."""
    peaks = PeakMemory()
    if not _PROC.exists():
        yield peaks
        return
    for pid in _family(os.getpid()):
        with contextlib.suppress(OSError):
            (_PROC / str(pid) / "clear_refs").write_text("5")
    thread = threading.Thread(target=peaks.watch, daemon=True, name="peak-memory")
    thread.start()
    try:
        yield peaks
    finally:
        peaks.stop()
        thread.join()
