"""The registry: versions logged once, aliases, promotion and the way back, downloads, and messages that name what exists."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.package import FORMAT, model_identity, save_model
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.errors import RegistryError, RegistrySilentError
from recsys_spark.register.stage import privacy_tags
from recsys_spark.registry import ModelVersion, Registry

SETTINGS = EncoderSettings(text_model="tiny", dtype="float32", dimension=8, max_tokens=16, user_layers=1, max_history=5)
TAGS = {"fingerprint": "f1", "run_id": "run", "trained_until": "2024-01-01", "namespace": "live"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a folder with 'quotes'")


@pytest.fixture(scope="module")
def registry(folder: Path) -> Registry:
    return Registry(f"sqlite:///{folder / 'mlflow.db'}", "tests of/the registry")


@pytest.fixture(scope="module")
def model_dir(folder: Path) -> Path:
    torch.manual_seed(0)
    return save_model(folder / "model-1", Encoder(SETTINGS, 32, 2), TextEncoder.load("tiny", 16, "float32"), ["a", "b"], 0.07, {})


def test_a_version_is_logged_once_and_found_by_alias_and_number(
    registry: Registry, model_dir: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert registry.versions("main") == []
    assert registry.log_version("main", model_dir, TAGS, {"recall": [(0, 0.5)]}, {"dimension": 8, "long": "x" * 9_000}) == 1
    assert registry.log_version("main", model_dir, TAGS, {}, {}) == 1
    assert registry.log_version("main", model_dir, TAGS | {"fingerprint": "f2"}, {}, {}) == 2
    registry.set_alias("main", "challenger", 2)
    registry.set_alias("main", "champion", 2)
    found = registry.resolve("main", "challenger")
    assert found == registry.resolve("main", "2") == registry.versions("main")[1]
    assert (found.version, found.aliases, found.tags["fingerprint"]) == (2, ("challenger", "champion"), "f2")
    assert list(tmp_path.iterdir()) == []  # nothing beside the working directory's own
    assert (folder / "mlartifacts").is_dir()
    with sqlite3.connect(folder / "mlflow.db") as store:
        assert store.execute("select value from latest_metrics where key = 'recall'").fetchall() == [(0.5,)]


def test_what_is_not_there_is_named_with_what_is(registry: Registry, model_dir: Path) -> None:
    registry.log_version("named", model_dir, {"fingerprint": "n"}, {}, {})
    registry.set_alias("named", "champion", 1)
    for ref, message in (
        ("prod", r"no alias 'prod'; expected an alias \(champion\) or a version \(1\)"),
        ("7", "no version '7'"),
    ):
        with pytest.raises(RegistryError, match=message):
            registry.resolve("named", ref)
    with pytest.raises(RegistryError, match=r"model 'absent': not in the registry; expected one of: .*named.*; train"):
        registry.resolve("absent", "champion")
    with pytest.raises(RegistryError, match="no version '9'"):
        registry.set_alias("named", "champion", 9)


def test_promotion_remembers_whom_it_replaced(registry: Registry, model_dir: Path) -> None:
    one, two = (registry.log_version("moved", model_dir, {"fingerprint": f}, {}, {}) for f in ("p", "q"))
    with pytest.raises(RegistryError, match="no alias 'champion'"):
        registry.rollback("moved")
    registry.promote(registry.resolve("moved", str(one)))
    with pytest.raises(RegistryError, match="champion 1 replaced no version"):
        registry.rollback("moved")
    for _ in range(2):  # again: the same
        registry.promote(registry.resolve("moved", str(two)))
    assert registry.resolve("moved", "champion").version == two
    assert registry.rollback("moved").version == one
    assert registry.resolve("moved", "champion").version == one


def test_a_download_is_a_model_folder_and_is_fetched_again_for_another_version(
    registry: Registry, model_dir: Path, tmp_path: Path
) -> None:
    other = save_model(
        tmp_path / "other", load_model(model_dir).encoder, TextEncoder.load("tiny", 16, "float32"), ["x", "y"], 0.2, {}
    )
    registry.log_version("fetched", model_dir, {"fingerprint": "d1"}, {}, {})
    registry.log_version("fetched", other, {"fingerprint": "d2"}, {}, {})
    first, second = registry.versions("fetched")
    target = tmp_path / "deep" / "fetched"
    assert registry.download(first, target) == target
    assert model_identity(target) == model_identity(model_dir)
    inode = (target / "weights.safetensors").stat().st_ino
    registry.download(first, target)
    assert (target / "weights.safetensors").stat().st_ino == inode
    registry.download(second, target)
    assert list(load_model(target).known_items) == ["x", "y"]
    gone = ModelVersion("fetched", 3, source=first.source + "-gone")
    with pytest.raises(RegistryError, match="artifacts cannot be read"):
        registry.download(gone, tmp_path / "gone")


def test_a_cleared_alias_is_nobodys(registry: Registry, model_dir: Path) -> None:
    registry.clear_alias("cleared", "champion")  # nobody held it: nothing to do
    version = registry.log_version("cleared", model_dir, {"fingerprint": "c"}, {}, {})
    registry.set_alias("cleared", "champion", version)
    registry.clear_alias("cleared", "champion")
    assert registry.holder("cleared", "champion") is None


def test_training_metrics_keep_their_steps(registry: Registry, folder: Path) -> None:
    run_id = registry.log_training("night", {"epochs": 2}, {"loss": [(0, 2.0), (1, 1.0)], "recall": [(1, 0.25)]})
    with sqlite3.connect(folder / "mlflow.db") as store:
        rows = store.execute("select key, step, value from metrics where run_uuid = ? order by key, step", (run_id,)).fetchall()
        params = store.execute("select key, value from params where run_uuid = ?", (run_id,)).fetchall()
    assert rows == [("loss", 0, 2.0), ("loss", 1, 1.0), ("recall", 1, 0.25)]
    assert params == [("epochs", "2")]


def test_the_logged_model_names_exact_requirements_and_no_index(registry: Registry, model_dir: Path) -> None:
    registry.log_version("pinned", model_dir, {"fingerprint": "r"}, {}, {})
    root = Path(unquote(registry.resolve("pinned", "1").source.removeprefix("file://")))
    lines = (root / "requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in lines} >= {"mlflow", "torch", "transformers"}
    assert not [line for line in lines if "==" not in line or "://" in line or "+" in line]
    assert not list(root.rglob("*.pkl"))
    assert json.loads((root / "artifacts" / "model-1" / "encoder.json").read_text())["format"] == FORMAT


def test_a_version_says_what_its_encoder_promises_users() -> None:
    assert privacy_tags({}) == {}
    told = privacy_tags({"privacy": {"epsilon": 7.98765, "delta": 0.0000125, "noise_multiplier": 1.25, "users": 8_000}})
    assert told == {"privacy_epsilon": "7.98765", "privacy_delta": "1.25e-05", "privacy_noise_multiplier": "1.25"}


def test_a_registry_that_does_not_answer_is_no_empty_one(
    registry: Registry, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry.versions("nobody's") == []
    registry.log_version("held", model_dir, {"fingerprint": "h"}, {}, {})

    def fails(*_: object) -> None:
        raise MlflowException("no rights", error_code=PERMISSION_DENIED)

    monkeypatch.setattr(registry._client, "get_registered_model", fails)
    with pytest.raises(RegistryError, match="registry answers PERMISSION_DENIED: no rights") as refused:
        registry.holder("held", "champion")
    assert refused.value.exit_code == 6
    with pytest.raises(RegistryError, match="PERMISSION_DENIED"):
        registry.log_version("held", model_dir, {"fingerprint": "h"}, {}, {})
    monkeypatch.undo()
    monkeypatch.setattr(registry._client, "create_registered_model", fails)
    with pytest.raises(RegistryError, match="PERMISSION_DENIED"):
        registry.log_version("other", model_dir, {"fingerprint": "o"}, {}, {})


def test_a_registry_that_is_away_may_be_asked_again(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers try again by the exit code."""

    def fails(*_: object) -> None:
        raise MlflowException("503: restarting", error_code=TEMPORARILY_UNAVAILABLE)

    monkeypatch.setattr(registry._client, "get_registered_model", fails)
    with pytest.raises(RegistrySilentError, match="registry answers TEMPORARILY_UNAVAILABLE: 503: restarting") as away:
        registry.versions("held")
    assert away.value.exit_code not in (2, 3, 4, 6)
