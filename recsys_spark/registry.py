"""Model versions in MLflow: logged once, resolved by alias or number, downloaded, deleted."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys_spark.encoder.pyfunc_folder import MODEL_ARTIFACT, save_pyfunc
from recsys_spark.errors import RegistryError, RegistrySilentError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

FINGERPRINT, REPLACED, CHAMPION = "fingerprint", "replaced", "champion"
_MAX_PARAM_CHARS = 500
# of what MLflow answers, that which no second try changes
_FOR_GOOD = ("PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_PARAMETER_VALUE", "ENDPOINT_NOT_FOUND")
_BATCH = 900  # MLflow takes at most 1,000 metrics a call


Curves = Mapping[str, Sequence[Sequence[float]]]  # metric -> its (step, value) points


@dataclass(frozen=True)
class ModelVersion:
    """One registered model version; ``tags`` as logged, ``aliases`` as they stood when it was read."""

    model_name: str
    version: int
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    source: str = ""


class Registry:
    """A tracking store with its model registry; ``sqlite:///`` keeps artifacts in ``mlartifacts/`` beside the file.

    Opened by the driver only: executors get model folders, never the store.
    """

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        import mlflow  # 2 s: only where the registry is really used

        for name in ("mlflow", "alembic"):  # after the import, which sets them to INFO
            logging.getLogger(name).setLevel(logging.ERROR)
        self._tracking_uri, self._experiment_name = tracking_uri, experiment
        self._error: type[Exception] = mlflow.exceptions.MlflowException
        with _first_start(tracking_uri):
            self._client = mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
            self._experiment_id = self._experiment()

    def log_version(
        self, model_name: str, model_dir: Path, tags: Mapping[str, str], metrics: Curves, params: Mapping[str, Any]
    ) -> int:
        """Log a model folder as the next version of ``model_name``, with the metrics of its training, and return its number.

        A version with the same tag ``fingerprint`` is returned instead: a rerun logs nothing twice.
        """
        known = self._with_fingerprint(model_name, tags.get(FINGERPRINT))
        if known is not None:
            return known.version
        run_id = self.log_training(f"{model_name} {tags.get('run_id', '')}".strip(), params, metrics, tags)
        with tempfile.TemporaryDirectory() as scratch:
            saved = save_pyfunc(model_dir, Path(scratch))
            self._client.log_artifacts(run_id, str(saved), MODEL_ARTIFACT)
        source = f"{self._client.get_run(run_id).info.artifact_uri}/{MODEL_ARTIFACT}"
        self._make_model(model_name)
        made = self._client.create_model_version(model_name, source, run_id=run_id, tags=_strings(tags))
        return int(made.version)

    def log_training(
        self,
        run_name: str,
        params: Mapping[str, Any],
        metrics: Curves,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """One finished MLflow run: parameters, and per metric its (step, value) points. Returns its id."""
        from mlflow.entities import Metric, Param, RunTag

        run = self._client.create_run(self._experiment_id, run_name=run_name)
        points = [Metric(name, float(value), 0, int(step)) for name, curve in metrics.items() for step, value in curve]
        settings = [Param(name, str(value)[:_MAX_PARAM_CHARS]) for name, value in params.items()]
        labels = [RunTag(name, value) for name, value in _strings(tags or {}).items()]
        for start in range(0, max(len(points), 1), _BATCH):
            first = start == 0
            part = points[start : start + _BATCH]
            self._client.log_batch(run.info.run_id, part, settings if first else (), labels if first else ())
        self._client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def set_alias(self, model_name: str, alias: str, version: int) -> None:
        """Point ``alias`` at a version.

        Raises:
            RegistryError: there is no such version.
        """
        found = self.resolve(model_name, str(version))
        self._client.set_registered_model_alias(model_name, alias, str(found.version))

    def clear_alias(self, model_name: str, alias: str) -> None:
        """Nobody holds ``alias`` afterwards."""
        if self.holder(model_name, alias) is not None:
            self._client.delete_registered_model_alias(model_name, alias)

    def set_tag(self, model: ModelVersion, name: str, value: str) -> None:
        """Set one tag of a version."""
        self._client.set_model_version_tag(model.model_name, str(model.version), name, value)

    def delete(self, model: ModelVersion) -> None:
        """Remove a version and its artifacts; the figures of its training stay in the experiment.

        Raises:
            RegistryError: an alias points at it.
        """
        if model.aliases:
            where, found = f"model '{model.model_name}' version {model.version}", ", ".join(model.aliases)
            raise RegistryError(where, f"is the {found}", "a version without an alias", "give the alias to another one first")
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        self._client.delete_model_version(model.model_name, str(model.version))
        get_artifact_repository(model.source, self._tracking_uri).delete_artifacts()

    def promote(self, model: ModelVersion, alias: str = CHAMPION) -> None:
        """Give ``alias`` to a version and remember on it which one it replaces, for ``rollback``."""
        before = self.holder(model.model_name, alias)
        if before is not None and before.version == model.version:
            return
        self.set_tag(model, REPLACED, str(before.version) if before else "")
        self.set_alias(model.model_name, alias, model.version)

    def rollback(self, model_name: str, alias: str = CHAMPION) -> ModelVersion:
        """Give ``alias`` back to the version that its holder replaced, and return that one.

        Raises:
            RegistryError: nobody holds the alias, or its holder replaced none.
        """
        holder = self.resolve(model_name, alias)
        before = holder.tags.get(REPLACED, "")
        if not before:
            where = f"model '{model_name}'"
            raise RegistryError(where, f"{alias} {holder.version} replaced no version", do="promote a version by its number")
        self.set_alias(model_name, alias, int(before))
        return self.resolve(model_name, before)

    def versions(self, model_name: str) -> list[ModelVersion]:
        """All versions, oldest first; none where nothing has been registered under this name.

        Raises:
            RegistryError: the registry does not answer (RegistrySilentError: it may later); that is no model that is not there.
        """
        try:
            model = self._client.get_registered_model(model_name)
        except self._error as error:
            if _code(error) == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise self._unreadable(model_name, error) from None
        aliases: dict[int, list[str]] = {}
        for alias, number in dict(model.aliases or {}).items():
            aliases.setdefault(int(number), []).append(alias)
        found = []
        for v in self._search(model_name):
            names = tuple(sorted(aliases.get(int(v.version), [])))
            found.append(ModelVersion(model_name, int(v.version), dict(v.tags or {}), names, str(v.source)))
        return sorted(found, key=lambda v: v.version)

    def holder(self, model_name: str, alias: str) -> ModelVersion | None:
        """The version that has ``alias``, or None."""
        return next((v for v in self.versions(model_name) if alias in v.aliases), None)

    def resolve(self, model_name: str, ref: str) -> ModelVersion:
        """The version behind an alias (``"champion"``) or a number (``"3"``).

        Raises:
            RegistryError: no such model, alias or version; the message names those that exist.
        """
        where, known = f"model '{model_name}'", self.versions(model_name)
        if not known:
            names = ", ".join(sorted(m.name for m in self._client.search_registered_models())) or "none"
            raise RegistryError(where, "not in the registry", f"one of: {names}", "train and register a model first")
        for candidate in known:
            if ref in candidate.aliases or ref == str(candidate.version):
                return candidate
        numbers = ", ".join(str(v.version) for v in known)
        aliases = ", ".join(sorted(alias for v in known for alias in v.aliases)) or "none"
        kind = "version" if ref.isdigit() else "alias"
        raise RegistryError(where, f"no {kind} '{ref}'", f"an alias ({aliases}) or a version ({numbers})")

    def download(self, model: ModelVersion, target_dir: str | Path) -> Path:
        """The model folder of a version, at ``target_dir``; fetched once, and again where the folder is another version's.

        Raises:
            RegistryError: the artifacts are gone or hold no model folder.
        """
        target = Path(target_dir)
        marker = target / ".version"
        identity = f"{model.model_name}\n{model.version}\n{model.source}\n"
        if marker.exists() and marker.read_text(encoding="utf-8") == identity:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            folder = self._fetch(model, scratch)
            (folder / ".version").write_text(identity, encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)
        return target

    def _fetch(self, model: ModelVersion, scratch: str) -> Path:
        import mlflow

        where = f"model '{model.model_name}' version {model.version}"
        try:
            got = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{model.source}/artifacts", dst_path=scratch, tracking_uri=self._tracking_uri
            )
        except (OSError, self._error) as error:
            reason = " ".join(str(error).split())[:200]
            raise RegistryError(where, f"artifacts cannot be read ({reason})", model.source, "restore them or retrain") from None
        description = next(iter(sorted(Path(got).glob("*/encoder.json"))), None)
        if description is None:
            raise RegistryError(where, "holds no model folder", "artifacts/*/encoder.json", "it was not logged by this project")
        return description.parent

    def _make_model(self, model_name: str) -> None:
        try:
            self._client.create_registered_model(model_name)
        except self._error as error:
            if _code(error) != "RESOURCE_ALREADY_EXISTS":  # as it does from the second version on
                raise self._unreadable(model_name, error) from None

    def _unreadable(self, model_name: str, error: Exception) -> RegistryError:
        kind = RegistryError if _code(error) in _FOR_GOOD else RegistrySilentError
        found = f"the registry answers {_code(error)}: {' '.join(str(error).split())[:200]}"
        return kind(f"model '{model_name}'", found, "its versions", "see that the registry can be read, then run again")

    def _search(self, model_name: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            quoted = model_name.replace("'", "''")
            page = self._client.search_model_versions(f"name='{quoted}'", max_results=1_000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _with_fingerprint(self, model_name: str, fingerprint: str | None) -> ModelVersion | None:
        if fingerprint is None:
            return None
        return next((v for v in self.versions(model_name) if v.tags.get(FINGERPRINT) == fingerprint), None)

    def _experiment(self) -> str:
        """Id of the experiment, made where it is not there yet."""
        found = self._client.get_experiment_by_name(self._experiment_name)
        if found is None:
            folder = _artifact_folder(self._tracking_uri)
            location = None if folder is None else (folder / re.sub(r"[^A-Za-z0-9_.-]", "_", self._experiment_name)).as_uri()
            return str(self._client.create_experiment(self._experiment_name, artifact_location=location))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def _code(error: Exception) -> str:
    """MLflow's name of what went wrong."""
    return str(getattr(error, "error_code", type(error).__name__))


def _strings(tags: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in tags.items()}


def _sqlite_file(tracking_uri: str) -> Path | None:
    prefix = "sqlite:///"
    return Path(tracking_uri.removeprefix(prefix)).absolute() if tracking_uri.startswith(prefix) else None


def _artifact_folder(tracking_uri: str) -> Path | None:
    """``mlartifacts`` beside a sqlite file, so that nothing depends on the working directory; a server has its own."""
    file = _sqlite_file(tracking_uri)
    return None if file is None else file.parent / "mlartifacts"


@contextlib.contextmanager
def _first_start(tracking_uri: str) -> Iterator[None]:
    """One process at a time creates a sqlite store: two at once fail half-way through its schema."""
    file = _sqlite_file(tracking_uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
