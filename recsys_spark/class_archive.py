"""An archive of the classes that Spark's JVM loads, some 15,000 of them, which it would parse and check anew at every start.

Java makes it when a JVM ends (``-XX:ArchiveClassesAtExit``) and looks by itself whether one fits: of another Java, or of
other jars, it is left alone without a word. A file that was cut short would crash the JVM instead, so its size is in its name.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from recsys_spark.errors import MachineError

_NAME = re.compile(r"classes-(\d+)\.jsa")
_PLAIN = re.compile(r"[\w./+=@:-]+")  # what Java's options hold without being taken apart

_SILENT = ("-Xlog:cds=off", "-Xlog:cds+dynamic=off")  # of one that does not fit, too


def folder() -> Path:
    """Where the archive lies: beside the packages whose jars it is of."""
    return Path(sys.prefix) / "var" / "recsys-spark"


def java_options(home: Path | None = None) -> list[str]:
    """What to start a JVM with so that it uses the archive; nothing where there is none.

    Args:
        home: the folder; default: this environment's.
    """
    for path in sorted((home or folder()).glob("classes-*.jsa")):
        found = _NAME.fullmatch(path.name)
        if found and path.stat().st_size == int(found[1]) and _PLAIN.fullmatch(str(path)):
            return [f"-XX:SharedArchiveFile={path}", *_SILENT]
    return []


def dump_options(path: Path) -> list[str]:
    """What to start a JVM with that leaves an archive when it ends."""
    return [f"-XX:ArchiveClassesAtExit={path}", "-Xlog:disable"]  # else a line per class that it leaves out


def put(path: Path, home: Path | None = None) -> Path:
    """Let sessions from now on use the archive ``path``, which is moved; returns where it lies.

    Raises:
        MachineError: the JVM has left none.
    """
    home = home or folder()
    if not path.is_file() or not path.stat().st_size:
        raise MachineError("archive of classes", f"Java left no file {path.name}", do="look at Java's messages above")
    old = list(home.glob("classes-*.jsa"))
    kept = home / f"classes-{path.stat().st_size}.jsa"
    path.replace(kept)
    for each in old:
        if each != kept:
            each.unlink()  # a JVM that runs by it keeps what it has opened
    return kept
