"""The commands on registered models: list, promote, roll back."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from recsys_spark.config import Config
from recsys_spark.registry import Registry


def _registry(config: Config) -> Registry:
    return Registry(config.tracking_uri, config.registry.experiment)


def list_versions(config: Config) -> None:
    """Print every version with its aliases, what it was trained on and, trained with privacy, its epsilon."""
    table = Table("version", "aliases", "trained until", "run", "epsilon", title=config.model_name)
    for version in _registry(config).versions(config.model_name):
        tags = version.tags
        said = [tags.get(name, "") for name in ("trained_until", "run_id", "privacy_epsilon")]
        table.add_row(str(version.version), ", ".join(version.aliases), *said)
    Console().print(table)


def promote(config: Config, reference: str) -> None:
    """Make a version the champion; it remembers the one it replaces."""
    registry = _registry(config)
    chosen = registry.resolve(config.model_name, reference)
    registry.promote(chosen)
    print(f"{config.model_name} version {chosen.version} is the champion")


def rollback(config: Config) -> None:
    """Give the alias back to the version that the champion replaced.

    Raises:
        RegistryError: there is no champion, or it replaced none.
    """
    before = _registry(config).rollback(config.model_name)
    print(f"{config.model_name} version {before.version} is the champion again")
