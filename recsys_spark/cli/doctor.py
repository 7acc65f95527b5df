"""Is this machine fit to run? Java, Python, packages, memory and disk, each with what to install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table

from recsys_spark import class_archive
from recsys_spark.errors import MachineError

JAVA_VERSIONS = (17, 21)
PACKAGES = {
    "pyspark": "4.0",
    "delta-spark": "4.0",
    "torch": "2.",
    "petastorm": "0.12",
    "pyarrow": "14.",
    "numpy": "1.26",
    "mlflow": "3.",
    "transformers": "5.",
}
MIN_MEMORY_GIB, MIN_DISK_GIB = 6.0, 5.0
INSTALL_JAVA = "install Java 17: apt-get install openjdk-17-jre-headless (Debian, Ubuntu) or brew install openjdk@17 (macOS)"


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    found: str
    do: str = ""


def java_version() -> int | None:
    """Major version of the Java that Spark would start, or None where there is none."""
    home = os.environ.get("JAVA_HOME")
    command = f"{home}/bin/java" if home else "java"
    try:
        text = subprocess.run([command, "-version"], capture_output=True, text=True, check=False).stderr
    except OSError:
        return None
    found = re.search(r'version "(\d+)', text)
    return int(found.group(1)) if found else None


def require_java() -> None:
    """Raise before anything starts when Java is absent or of a version that Spark 4 does not run on.

    Raises:
        MachineError: names the version found and what to install.
    """
    found = java_version()
    if found not in JAVA_VERSIONS:
        raise MachineError("Java", f"version {found}" if found else "none found", "Java 17 or 21", INSTALL_JAVA)


def _java() -> Check:
    found = java_version()
    return Check("Java", found in JAVA_VERSIONS, str(found or "none"), INSTALL_JAVA)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", sys.version_info[:2] == (3, 11), found, "use Python 3.11 (petastorm and pyarrow 14 set the limit)")


def _package(name: str, wanted: str) -> Check:
    try:
        found = version(name)
    except PackageNotFoundError:
        found = "none"
    return Check(name, found.startswith(wanted), found, f"pip install --constraint constraints.txt '{name}' (wanted {wanted}*)")


def _memory() -> Check:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Check("memory", gib >= MIN_MEMORY_GIB, f"{gib:.1f} GiB", f"at least {MIN_MEMORY_GIB:.0f} GiB for the demo")


def _disk() -> Check:
    gib = shutil.disk_usage(".").free / 2**30
    return Check("disk", gib >= MIN_DISK_GIB, f"{gib:.1f} GiB free", f"free {MIN_DISK_GIB:.0f} GiB here")


def _classes() -> Check:
    archived = bool(class_archive.java_options())
    return Check("archive of classes", True, "there" if archived else "none: recsys-spark prepare makes sessions start faster")


def checks() -> list[Check]:
    """Everything this machine is looked at for."""
    return [_java(), _python(), *(_package(n, v) for n, v in PACKAGES.items()), _memory(), _disk(), _classes()]


def check_machine() -> None:
    """Print all checks.

    Raises:
        MachineError: at least one failed; names the first with what to do.
    """
    done = checks()
    table = Table("", "what", "found", "to do", box=None)
    for check in done:
        table.add_row("ok" if check.ok else "[red]no[/]", check.name, check.found, "" if check.ok else check.do)
    Console().print(table)
    failed = [c for c in done if not c.ok]
    if failed:
        raise MachineError(failed[0].name, failed[0].found, do=failed[0].do)
