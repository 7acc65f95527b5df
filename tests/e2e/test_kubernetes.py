"""Spark's own Kubernetes scheduler, started as the manifest says, with pods by the image's entrypoint; one of them is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from recsys_spark.session import BRIEF
from recsys_spark.tables.store import Store
from tests.debug_data import QUICK, debug_config, write_config
from tests.e2e.conftest import Done
from tests.kubernetes_api import Cluster, serving

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
# what the image sets: there it is the only Python, and the only machine of the pod
IMAGE = {
    "PYSPARK_PYTHON": sys.executable,
    "SPARK_LOCAL_IP": "127.0.0.1",
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}
DRIVER: dict[str, Any] = {
    "metadata": {"name": "night-1"},
    "spec": {},
    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
}


def _smaller(url: str, folder: Path) -> dict[str, str]:
    """What this machine and this much data need in place of the manifest's numbers and addresses."""
    return {
        "spark.master": f"k8s://{url}",
        "spark.executor.instances": "2",
        "spark.executor.cores": "1",
        "spark.executor.memory": "1g",
        "spark.executor.memoryOverhead": "1g",
        "spark.driver.memory": "2g",
        "spark.sql.shuffle.partitions": "2",
        "spark.kubernetes.executor.enableApiWatcher": "false",  # pods are looked up, not watched
        "spark.kubernetes.executor.apiPollingInterval": "2s",
        "spark.kubernetes.executor.volumes.persistentVolumeClaim.data.mount.path": str(folder),
        "spark.python.daemon.module": "recsys_spark.worker_daemon",
        "spark.driver.extraJavaOptions": BRIEF,
        "spark.executor.extraJavaOptions": BRIEF,
        **QUICK,
    }


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_stage_runs_in_pods_and_a_lost_one_is_replaced(spark: SparkSession, done: Done, tmp_path: Path) -> None:
    container = next(yaml.safe_load_all((DEPLOY / "kubernetes" / "night.yaml").read_text()))
    container = container["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    settings = debug_config(done.data, tmp_path / "warehouse") | {"spark": {"shuffle_partitions": 2}}
    write_config(tmp_path / "night.toml", settings)
    cluster = Cluster(DEPLOY / "docker" / "entrypoint.sh", tmp_path / "pods", IMAGE, lose="-exec-1")
    cluster.folder.mkdir()
    home = tmp_path / "home"  # where the driver starts; as in the image
    home.mkdir()
    for name in ("conf", "jobs"):
        (home / name).symlink_to(ROOT / name)
    with serving(cluster) as url:
        cluster.put("pods", dict(DRIVER))
        lines = [f"{name} {value}\n" for name, value in _smaller(url, tmp_path).items()]
        given = (DEPLOY / "kubernetes" / "spark-kubernetes.conf").read_text()
        (tmp_path / "spark-kubernetes.conf").write_text(given + "".join(lines))
        said = container["args"][0]
        for there, here in {
            "/etc/recsys-spark": tmp_path,
            "/tmp/spark.conf": tmp_path / "spark.conf",
            "jobs/night.py": "jobs/ingest.py",
            "bindAddress=0.0.0.0": "bindAddress=127.0.0.1",
        }.items():
            assert there in said
            said = said.replace(there, str(here))
        command = [str(cluster.entrypoint), *container["command"][1:], said]
        env = {**os.environ, **IMAGE, "POD_IP": "127.0.0.1", "POD_NAME": DRIVER["metadata"]["name"]}
        ran = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=500, check=False)
        assert ran.returncode == 0, ran.stderr[-4000:]
        left = {name for name, item in cluster.objects["pods"].items() if item["spec"]}
    assert not left  # whoever was started is asked to go
    names = [pod["metadata"]["name"].rpartition("-exec-")[2] for pod in cluster.created]
    assert names == ["1", "2", "3"]
    for made in cluster.created:
        assert made["spec"]["containers"][0]["image"] == container["image"]
        assert made["spec"]["serviceAccountName"] == "recsys-spark"
        assert made["metadata"]["ownerReferences"][0]["name"] == "night-1"  # they end with their driver
        assert "recsys-spark-data" in [v.get("persistentVolumeClaim", {}).get("claimName") for v in made["spec"]["volumes"]]
    store = Store(spark, str(tmp_path / "warehouse"))
    for table in ("events", "users"):
        assert store.content(table, "live") == done.store.content(table, "live"), table
