"""Prune: what nobody can return to goes, what somebody can stays, and the nights that stay are found done."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from recsys_spark.cli.work import return_to
from recsys_spark.config import Config, parse_config
from recsys_spark.errors import MissingTableError, RegistryError
from recsys_spark.publish import prune as old
from recsys_spark.publish import stage as publish
from recsys_spark.registry import ModelVersion, Registry
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.runs import StagePlan, StageReport, run_stage
from recsys_spark.tables.store import Commit, Store, slice_of
from tests.debug_data import debug_config

DAYS = [datetime(2024, 3, day, tzinfo=UTC) for day in range(1, 6)]


def run_id(day: datetime, mark: int = 0) -> str:
    return f"{day:%Y%m%dT%H%M%S}-{mark:08x}"


class Warehouse:
    """Nights of one list row each, evaluated in a namespace of their own."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.config: Config = parse_config(debug_config(folder, Path(store.root)) | {"train": {"work_dir": str(folder / "work")}})

    def write(self, table: str, namespace: str, row: tuple[object, ...], where: str | None = None) -> None:
        frame = local_frame(self.store.spark, [row], contract(table).schema)
        self.store.replace(table, namespace, frame, Commit("r", "t", "f"), where=where)

    def night(self, day: datetime, mark: int = 0, model: int | None = None, published: bool = True) -> None:
        name = run_id(day, mark)
        self.lists(day, mark, model)
        self.write("pairs", f"eval/{name}", (1, 2, 1.0, "behaviour", "train"))
        self.write("metrics", f"eval/{name}", ("fused", "ndcg", 10, "all", 0.5, None, None, 7, model, "c"))
        self.write("pairs", f"eval/{name}/systems/popularity", (1, 2, 1.0, "behaviour", "train"))
        (self.config.work_dir / "eval" / name / "abc").mkdir(parents=True)
        if published:
            versions = {"recommendations": self.store.version("recommendations", "live")}
            publish.point(self.store, day, name, model, versions, "publish", "good")

    def lists(self, day: datetime, mark: int, model: int | None) -> StageReport:
        """As stage recommend writes them."""
        name = run_id(day, mark)

        def body(commit: Commit) -> tuple[list[object], dict[str, object]]:
            row = ("u", 1, "i", 1.0, "fused", [], model, name, day)
            where = slice_of(as_of=day.isoformat(), run_id=name)
            frame = local_frame(self.store.spark, [row], contract("recommendations").schema)
            return [self.store.replace("recommendations", "live", frame, commit, where=where)], {}

        plan = StagePlan("recommend", {"night": name}, {}, ("recommendations",))
        return run_stage(self.store, "live", name, day, plan, body)  # type: ignore[arg-type]

    def left(self) -> list[str]:
        return sorted(row["run_id"] for row in self.store.read("recommendations", "live").collect())


class Versions:
    """A registry of which only this is asked."""

    def __init__(self, *versions: ModelVersion) -> None:
        self.known, self.deleted = list(versions), list[int]()

    def versions(self, model_name: str) -> list[ModelVersion]:
        return self.known

    def delete(self, model: ModelVersion) -> None:
        self.deleted.append(model.version)


def version(number: int, made_by: str, *aliases: str, replaced: str = "") -> ModelVersion:
    return ModelVersion("debug", number, {"run_id": made_by, "replaced": replaced}, aliases)


@pytest.fixture
def warehouse(store: Store, tmp_path: Path) -> Warehouse:
    return Warehouse(store, tmp_path)


def test_the_newest_nights_stay_and_the_older_go_with_all_they_left(warehouse: Warehouse) -> None:
    store, registry = warehouse.store, Versions()
    for day in DAYS[:3]:
        warehouse.night(day)
    publish.point(store, DAYS[1], run_id(DAYS[1], 7), None, {}, "publish", "a night without lists")
    warehouse.night(DAYS[2], mark=1)  # the same night once more, with other settings
    warehouse.night(DAYS[0], mark=2, published=False)
    warehouse.night(DAYS[3], published=False)  # not yet
    found = old.leftovers(warehouse.config, store, registry, 2)  # type: ignore[arg-type]
    stay = [run_id(DAYS[1]), run_id(DAYS[2], 1), run_id(DAYS[3])]
    go = sorted([run_id(DAYS[0]), run_id(DAYS[0], 2), run_id(DAYS[2])])
    assert [name for _, name in found.kept] == stay[:2]
    assert sorted(found.namespaces) == [f"eval/{name}" for name in go]
    old.prune(warehouse.config, store, registry, found, free_files=True)  # type: ignore[arg-type]
    assert warehouse.left() == stay
    for name in go:
        assert not store.exists("pairs", f"eval/{name}")
        assert not store.exists("pairs", f"eval/{name}/systems/popularity")
        assert store.rows("metrics", f"eval/{name}") == 1, "figures stay"
        assert not (warehouse.config.work_dir / "eval" / name).exists()
    for name in stay:
        assert store.exists("pairs", f"eval/{name}")
        assert store.exists("pairs", f"eval/{name}/systems/popularity")
        assert (warehouse.config.work_dir / "eval" / name).exists()
    assert old.leftovers(warehouse.config, store, registry, 2).nothing  # type: ignore[arg-type]
    assert publish.published_night(store, DAYS[1])["run_id"] == run_id(DAYS[1])
    with pytest.raises(MissingTableError, match="no such night was published"):
        publish.published_night(store, DAYS[4])
    with pytest.raises(MissingTableError, match="lists of that night were pruned; expected one of: 2024-03-02T00:00:00Z"):
        publish.published_night(store, DAYS[0])


def test_who_is_read_now_stays_and_its_rerun_finds_it_done(warehouse: Warehouse) -> None:
    store, registry = warehouse.store, Versions()
    for day in DAYS[:4]:
        warehouse.night(day)
    publish.rollback(store, publish.published_night(store, DAYS[1]))
    found = old.leftovers(warehouse.config, store, registry, 1)  # type: ignore[arg-type]
    assert [name for _, name in found.kept] == [run_id(DAYS[1]), run_id(DAYS[3])]
    old.prune(warehouse.config, store, registry, found, free_files=False)  # type: ignore[arg-type]
    now = publish.current(store)
    assert now is not None
    assert (now["run_id"], now["action"]) == (run_id(DAYS[1]), "prune")
    assert now["versions"] == {"recommendations": store.version("recommendations", "live")}
    assert warehouse.lists(DAYS[3], 0, None).status == "skipped", "the newest night's lists stand as they were recorded"
    assert warehouse.left() == [run_id(DAYS[1]), run_id(DAYS[3])]


def test_model_versions_go_when_no_alias_no_night_and_no_way_back_needs_them(warehouse: Warehouse) -> None:
    store = warehouse.store
    for number, day in enumerate(DAYS, 1):
        warehouse.night(day, model=3 if number > 3 else number)
        where = slice_of(model_name="debug") + f" AND model_version = {number}"
        warehouse.write("item_embeddings", "live", (0, "i", [0.5], "s", "debug", number), where)
    by = [run_id(day) for day in DAYS]
    versions = [
        version(1, by[0]),
        version(2, by[1]),
        version(3, by[2], "champion", replaced="2"),
        version(4, by[3]),
        version(5, by[4]),
    ]
    registry = Versions(*versions, version(6, "by hand"))
    found = old.leftovers(warehouse.config, store, registry, 1)  # type: ignore[arg-type]
    assert [v.version for v in found.models] == [1, 4]
    old.prune(warehouse.config, store, registry, found, free_files=False)  # type: ignore[arg-type]
    assert registry.deleted == [1, 4]
    assert sorted(row["model_version"] for row in store.read("item_embeddings", "live").collect()) == [2, 3, 5]


def test_before_the_first_night_there_is_one_clear_line(warehouse: Warehouse) -> None:
    with pytest.raises(MissingTableError, match="no night has been published"):
        old.leftovers(warehouse.config, warehouse.store, Versions(), 3)  # type: ignore[arg-type]


def test_a_version_is_deleted_with_its_artifacts_but_not_while_an_alias_points_at_it(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", "tests")
    folder = tmp_path / "model-1"
    folder.mkdir()
    (folder / "encoder.json").write_text("{}")
    for number in (1, 2):
        registry.log_version("debug", folder, {"fingerprint": str(number)}, {}, {})
    registry.set_alias("debug", "champion", 2)
    first, second = registry.versions("debug")
    artifacts = Path(first.source.removeprefix("file://"))
    assert list(artifacts.rglob("encoder.json"))
    registry.delete(first)
    assert not list(artifacts.rglob("*.json"))
    assert [v.version for v in registry.versions("debug")] == [2]
    with pytest.raises(RegistryError, match="is the champion"):
        registry.delete(second)


def test_a_return_whose_model_is_gone_moves_nobody(warehouse: Warehouse) -> None:
    for day, model in zip(DAYS[:2], (1, None), strict=True):
        warehouse.night(day, model=model)
    before = publish.current(warehouse.store)
    config = parse_config(warehouse.config.model_dump(mode="json") | {"as_of": DAYS[0].isoformat()})
    with pytest.raises(RegistryError):
        return_to(config, warehouse.store)
    assert publish.current(warehouse.store) == before
