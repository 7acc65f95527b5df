"""A finished night's receipt: from it the same night is known to stand before Spark, torch or MLflow is started."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recsys_spark.code_version import code_version
from recsys_spark.config import Config
from recsys_spark.config.ingest import Source
from recsys_spark.files import write_json
from recsys_spark.night_names import stamp

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_SQLITE = "sqlite:///"
_NOT_OURS = ("{", "[^", "\\")  # Hadoop's patterns that Python's glob reads otherwise: what they match is not seen from here
Stamp = list[Any]  # [path, bytes, modified, changed]


@dataclass(frozen=True)
class Receipt:
    """What a night was made from and what it left.

    Args:
        run_id: of the night.
        inputs: hash of settings, code, and the stamps of all source files.
        state: the version of every table the night reads or writes, and the stamp of the registry.
        report: path of its HTML report.
        screen: what it printed at its end.
    """

    run_id: str
    inputs: str
    state: dict[str, Any]
    report: str
    screen: str


def keep(config: Config, run_id: str, report: Path, screen: str) -> None:
    """Leave a receipt for the night that has just ended; none where something lies beyond the local disk."""
    inputs, state = _inputs(config), _state(config, run_id)
    if inputs is None or state is None:
        return
    write_json(_path(config), asdict(Receipt(run_id, inputs, state, str(report), screen)))


def standing(config: Config) -> Receipt | None:
    """The receipt of this very night, if nothing has changed since: no setting, code, source file, table, model or report.

    None says only that a closer look is needed, which is what a rerun is.
    """
    try:
        found = Receipt(**json.loads(_path(config).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    same = found.inputs == _inputs(config) and found.state == _state(config, found.run_id) and Path(found.report).exists()
    return found if same else None


def _path(config: Config) -> Path:
    return config.work_dir / "receipts" / f"{stamp(config.as_of)}.json"


def _inputs(config: Config) -> str | None:
    paths = list(_source_paths(config))
    if any(_REMOTE.match(path) or any(mark in path for mark in _NOT_OURS) for path in paths):
        return None
    stamps = [[stamp for found in _matches(path) for stamp in _stamps(found)] for path in paths]
    document = json.dumps([config.model_dump(mode="json"), code_version(), stamps], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


def _source_paths(config: Config) -> Iterator[str]:
    ingest = config.ingest
    links = ingest.knowledge_graph.links if ingest.knowledge_graph else None
    for source in (ingest.events, ingest.items, ingest.users, ingest.knowledge_graph, links):
        if isinstance(source, Source):
            yield from source.paths
    yield from (path for path in (config.recommend.lists_path, config.evaluate.holdout_table) if path)


def _matches(path: str) -> list[Path]:
    if Path(path).exists():
        return [Path(path)]
    root = Path(Path(path).anchor)
    return sorted(root.glob(str(Path(path).relative_to(root))))


def _stamps(path: Path) -> Iterator[Stamp]:
    """Of a file, or of every file in a folder. A copy has another time of change: it is looked at more closely."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            status = file.stat()
            yield [str(file.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _state(config: Config, run_id: str) -> dict[str, Any] | None:
    uri = config.tracking_uri
    if _REMOTE.match(config.warehouse) or not uri.startswith(_SQLITE):
        return None
    root = Path(config.warehouse)
    logs = [log for part in ("shared", "live", f"eval/{run_id}") for log in sorted((root / part).rglob("_delta_log"))]
    return {
        "tables": {str(log.parent.relative_to(root)): max((p.name for p in log.glob("*.json")), default="") for log in logs},
        "registry": list(_stamps(Path(uri.removeprefix(_SQLITE)))),
    }
