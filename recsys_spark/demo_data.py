"""MovieLens-100K for the demo and the protocol proof, taken from the PyPI wheel recbole 1.2.1."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from recsys_spark.errors import InputError

WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FILES = ("ml-100k.inter", "ml-100k.item", "ml-100k.user", "ml-100k.link", "ml-100k.kg")
ENV_FOLDER = "RECSYS_SPARK_ML100K"
DEFAULT_FOLDER = Path(".cache/ml-100k")


def ml100k_folder(folder: Path | None = None) -> Path:
    """A folder with the five files of MovieLens-100K; fetched once, then found.

    The environment variable RECSYS_SPARK_ML100K may name a folder that already holds them.

    Raises:
        InputError: the wheel cannot be fetched, or its bytes are not the known ones.
    """
    target = folder or Path(os.environ.get(ENV_FOLDER, DEFAULT_FOLDER))
    if all((target / name).exists() for name in FILES):
        return target
    with tempfile.TemporaryDirectory() as temporary:
        wheel = _fetch(Path(temporary))
        target.mkdir(parents=True, exist_ok=True)
        _extract(wheel, target)
    return target


def _fetch(into: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(into), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(into.glob("recbole-*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.strip().splitlines() or ["no wheel arrived"]
        do = f"check the network, or set {ENV_FOLDER} to a folder with {', '.join(FILES)}"
        raise InputError("MovieLens-100K", f"pip could not fetch {WHEEL}: {lines[-1][:200]}", do=do)
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise InputError("MovieLens-100K", f"the wheel's sha256 is {found}", WHEEL_SHA256, "do not use this file")
    return wheels[0]


def _extract(wheel: Path, target: Path) -> None:
    """Write each file under a temporary name first, so that a kill leaves no half file behind."""
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            part = target / f"{name}.part"
            part.write_bytes(archive.read(f"recbole/dataset_example/ml-100k/{name}"))
            part.replace(target / name)
