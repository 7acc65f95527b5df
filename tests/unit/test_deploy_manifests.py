"""What deploy/ says to Kubernetes and to Docker: by the schemas of Kubernetes, and by what the package itself has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

import recsys_spark
from recsys_spark.config import load_config
from recsys_spark.errors import ConfigError, ContractError, InputError, PendingError, RegistryError
from recsys_spark.order import STEPS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(FOLDER.rglob("*.yaml"))
KUBERNETES = "1.33"
CUSTOM = ("sparkoperator.k8s.io", "kubeflow.org", "trainer.kubeflow.org")
Document = dict[str, Any]


def _documents(*paths: Path) -> list[tuple[str, Document]]:
    return [(path.name, doc) for path in paths for doc in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def _group(document: Document) -> str:
    return str(document["apiVersion"]).partition("/")[0]


ALL = [(name, doc) for name, doc in _documents(*FILES) if doc["kind"] != "Kustomization"]
CORE = [(name, doc) for name, doc in ALL if _group(doc) not in CUSTOM]
OTHERS = [(name, doc) for name, doc in ALL if _group(doc) in CUSTOM]


def _every(value: Any, key: str) -> Iterator[Any]:
    """All values under this key, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from _every(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _every(inner, key)


def _properties(path: Path) -> dict[str, str]:
    lines = [line.split(None, 1) for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {name: value.strip() for name, value in lines}


CLAIM = "spark.kubernetes.executor.volumes.persistentVolumeClaim.data.options.claimName"
PODS = _properties(FOLDER / "spark-kubernetes.conf")  # of drivers in pods of their own


def test_there_is_something_to_check() -> None:
    assert (len(CORE), len(OTHERS)) == (7, 4)


@pytest.mark.parametrize(("name", "document"), CORE, ids=[f"{name}-{doc['kind']}" for name, doc in CORE])
def test_kubernetes_knows_every_field(name: str, document: Document) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**document, "metdata": {}}, KUBERNETES, strict=True)


@pytest.mark.skipif("RECSYS_SPARK_CRDS" not in os.environ, reason="RECSYS_SPARK_CRDS: no folder of definitions")
@pytest.mark.parametrize(("name", "document"), OTHERS, ids=[f"{name}-{doc['kind']}" for name, doc in OTHERS])
def test_operators_know_every_field(name: str, document: Document) -> None:
    definitions = _documents(*sorted(Path(os.environ["RECSYS_SPARK_CRDS"]).glob("*.yaml")))
    found = [
        version["schema"]["openAPIV3Schema"]
        for _, crd in definitions
        if crd and crd["spec"]["names"]["kind"] == document["kind"] and crd["spec"]["group"] == _group(document)
        for version in crd["spec"]["versions"]
        if version["name"] == document["apiVersion"].partition("/")[2]
    ]
    assert len(found) == 1
    _close(found[0])
    found[0]["properties"]["metadata"].pop("additionalProperties", None)
    jsonschema.validate(document, found[0])


def _close(schema: Any) -> None:
    """No property but those that are named, as the API server has it."""
    if isinstance(schema, dict):
        named = "properties" in schema and "x-kubernetes-preserve-unknown-fields" not in schema
        if named and schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
        if schema.pop("x-kubernetes-int-or-string", False):  # a type of Kubernetes' own
            schema.pop("type", None)
        for inner in schema.values():
            _close(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _close(inner)


def test_everything_is_applied_and_found() -> None:
    (kustomization,) = [doc for _, doc in _documents(FOLDER / "kustomization.yaml")]
    assert sorted(kustomization["resources"]) == sorted({name for name, _ in CORE})
    (generated,) = kustomization["configMapGenerator"]
    assert all((FOLDER / file).is_file() for file in generated["files"])
    documents = [doc for _, doc in ALL]
    assert {doc["metadata"].get("namespace", "recsys-spark") for doc in documents} == {kustomization["namespace"]}
    claims, accounts = (
        {doc["metadata"]["name"] for doc in documents if doc["kind"] == kind}
        for kind in ("PersistentVolumeClaim", "ServiceAccount")
    )
    assert {*_every(documents, "claimName"), PODS[CLAIM]} == claims
    asked = {*_every(documents, "serviceAccountName"), PODS["spark.kubernetes.authenticate.serviceAccountName"]}
    assert asked | {name for name in _every(documents, "serviceAccount") if isinstance(name, str)} == accounts
    volumes = {v["configMap"]["name"] for some in _every(documents, "volumes") for v in some if "configMap" in v}
    assert volumes == {generated["name"]}


def test_all_pods_run_this_version_of_the_image() -> None:
    images = {*_every([doc for _, doc in ALL], "image"), PODS["spark.kubernetes.container.image"]}
    assert images == {f"recsys-spark:{recsys_spark.__version__}"}
    assert f"--tag recsys-spark:{recsys_spark.__version__} " in (ROOT / "deploy" / "docker" / "Dockerfile").read_text()


def test_configuration_and_arguments_are_those_the_jobs_take() -> None:
    config = load_config(FOLDER / "night.toml", "today")
    assert config.ingest.id_key_env == "RECSYS_ID_KEY"
    assert all(path.startswith("/data/") for path in (config.warehouse, str(config.work_dir)))
    for name, document in OTHERS:
        for job in _every(document, "mainApplicationFile"):
            assert (ROOT / "jobs" / Path(job).name).is_file(), name
            assert job.startswith("local:///opt/recsys-spark/jobs/")
        for arguments in [document["spec"].get("arguments"), *_every(document["spec"].get("template"), "arguments")]:
            given = dict(zip(arguments[::2], arguments[1::2], strict=True)) if arguments else {}
            if given:
                assert given["--config"] == "/etc/recsys-spark/night.toml"
                load_config(FOLDER / "night.toml", given["--as-of"])
            if "--namespace" in given:
                assert ("recommend", given["--namespace"]) in STEPS


def test_spark_is_told_the_same_by_the_operator() -> None:
    plain = _properties(ROOT / "conf" / "spark.conf")
    plain.pop("spark.jars.packages")  # part of the image
    confs = [conf for _, doc in OTHERS for conf in _every(doc, "sparkConf")]
    assert len(confs) == 2
    for conf in confs:
        more = {"spark.python.daemon.module": "recsys_spark.worker_daemon"}
        more["spark.sql.shuffle.partitions"] = PODS["spark.sql.shuffle.partitions"]
        assert conf == plain | more


def test_what_no_second_try_mends_is_not_tried_again() -> None:
    (night,) = [doc for name, doc in CORE if name == "night.yaml"]
    (codes,) = _every(night, "onExitCodes")
    assert codes["values"] == [e.exit_code for e in (ConfigError, InputError, ContractError, RegistryError)]
    assert PendingError.exit_code not in codes["values"]


def test_hadolint_finds_nothing() -> None:
    found = subprocess.run(
        [str(Path(sys.executable).parent / "hadolint"), str(ROOT / "deploy" / "docker" / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("script", sorted((ROOT / "deploy").rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)
