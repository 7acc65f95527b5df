"""The commands on registered models: list, promote, roll back."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from recsys_spark.config import Config
from recsys_spark.errors import RegistryError
from recsys_spark.night import CHAMPION
from recsys_spark.registry import Registry


def _registry(config: Config) -> Registry:
    return Registry(config.tracking_uri, config.registry.experiment)


def list_versions(config: Config) -> None:
    """Print every version with its aliases and what it was trained on."""
    table = Table("version", "aliases", "trained until", "run", title=config.model_name)
    for version in _registry(config).versions(config.model_name):
        tags = version.tags
        table.add_row(str(version.version), ", ".join(version.aliases), tags.get("trained_until", ""), tags.get("run_id", ""))
    Console().print(table)


def promote(config: Config, reference: str) -> None:
    """Make a version the champion and remember the one it replaces."""
    registry = _registry(config)
    chosen = registry.resolve(config.model_name, reference)
    before = next((v for v in registry.versions(config.model_name) if CHAMPION in v.aliases), None)
    if before is not None and before.version != chosen.version:
        registry.set_tag(chosen, "replaced", str(before.version))
    registry.set_alias(config.model_name, CHAMPION, chosen.version)
    print(f"{config.model_name} version {chosen.version} is the champion")


def rollback(config: Config) -> None:
    """Give the alias back to the version that the champion replaced.

    Raises:
        RegistryError: there is no champion, or it replaced none.
    """
    registry = _registry(config)
    champion = registry.resolve(config.model_name, CHAMPION)
    before = champion.tags.get("replaced", "")
    if not before:
        where = f"model '{config.model_name}'"
        raise RegistryError(where, f"champion {champion.version} replaced no version", do="models promote VERSION")
    registry.set_alias(config.model_name, CHAMPION, int(before))
    print(f"{config.model_name} version {before} is the champion again (was {champion.version})")
