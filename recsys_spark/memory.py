"""How much memory is free for one large array: what the machine has left, or the container it runs in; and what a process keeps
of what it frees."""

from __future__ import annotations

from pathlib import Path

import psutil

# Environment of processes of many large arrays: they keep up to a GiB of what they free, which would else be given back to the
# system each time and cleared by it for the next array.
KEEP_FREED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
_CONTAINER = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """Bytes that this process could still take without swapping or being killed."""
    free = int(psutil.virtual_memory().available)
    limit, used = _number("memory.max"), _number("memory.current")
    # what was read from files and may go at any time counts as used
    return free if limit is None or used is None else min(free, max(limit - used + _reclaimable(), 0))


def _reclaimable() -> int:
    try:
        lines = (_CONTAINER / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


def _number(name: str) -> int | None:
    """A figure of the container's control group; None where there is none, or no limit."""
    try:
        text = (_CONTAINER / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
