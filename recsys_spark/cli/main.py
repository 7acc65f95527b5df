"""Entry point of ``recsys-spark``: the commands and how they hang together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys_spark import process
from recsys_spark.cli.benchmarks import benchmark
from recsys_spark.cli.synthetic import synthetic
from recsys_spark.config import Config, load_config
from recsys_spark.publish.named_users import named_users
from recsys_spark.receipt import standing

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="TOML configuration")]
AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", help="overrides the file's as_of, e.g. 2026-11-22T00:00:00Z, or today: the last midnight, UTC"),
]
NamespaceOption = Annotated[str | None, typer.Option("--namespace", help="live or eval; default: the stage's first in a night")]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Batch recommendations on Spark."
)
show = typer.Typer(no_args_is_help=True, help="Show published lists of one user or item.")
models = typer.Typer(no_args_is_help=True, help="Model versions and their aliases.")
app.add_typer(show, name="show")
app.add_typer(models, name="models")
app.add_typer(benchmark, name="benchmark")
app.command("synthetic")(synthetic)

STAGES = ("ingest", "cooccurrence", "pairs", "train", "embed", "recommend", "evaluate", "publish")


def _told_again(settings: Config) -> bool:
    """Whether this very night stands; then what it said has been said again."""
    again = standing(settings)
    if again is not None:
        typer.echo(f"night {again.run_id} stands: settings, code, sources, tables and models are as it left them. It said:")
        typer.echo(again.screen)
    return again is not None


def _begin(settings: Config, reads_log: bool = False) -> None:
    """Start the session; what will work in it is imported meanwhile."""
    from recsys_spark.cli.opening import begin, has_small_log

    begin(settings, has_small_log(settings) if reads_log else True, loads_workers=reads_log)


@app.command()
def run(config: ConfigOption, as_of: AsOfOption = None) -> None:
    """Run a whole night.

    Example: recsys-spark run --config conf/demo.toml
    """
    settings = load_config(config, as_of)
    if _told_again(settings):
        return
    _begin(settings, reads_log=True)
    from recsys_spark.cli.work import night

    night(settings)


@app.command()
def demo(config: ConfigOption = Path("conf/demo.toml")) -> None:
    """MovieLens-100K from raw log to published recommendations.

    Example: recsys-spark demo
    """
    from recsys_spark.cli.doctor import require_java
    from recsys_spark.demo_data import ml100k_folder

    require_java()
    ml100k_folder()
    settings = load_config(config)
    if _told_again(settings):
        return
    _begin(settings, reads_log=True)
    from recsys_spark.cli.work import demo as run_demo

    run_demo(settings)


def _stage_command(stage: str) -> None:
    def command(config: ConfigOption, namespace: NamespaceOption = None, as_of: AsOfOption = None) -> None:
        settings = load_config(config, as_of)
        _begin(settings, reads_log=True)
        from recsys_spark.cli.work import step

        step(settings, stage, namespace)

    command.__doc__ = f"Run the stage '{stage}' alone.\n\nExample: recsys-spark {stage} --config conf/demo.toml"
    app.command(stage)(command)


for _stage in STAGES:
    _stage_command(_stage)


@show.command("user")
def show_user(user_id: str, config: ConfigOption, k: int = 10) -> None:
    """The published list of one user, with titles and reasons.

    Example: recsys-spark show user 196 --config conf/demo.toml
    """
    settings = load_config(config)
    _begin(settings)
    from recsys_spark.cli.work import show_user as work

    work(settings, user_id, k)


@show.command("item")
def show_item(item_id: str, config: ConfigOption, k: int = 10) -> None:
    """The published neighbours of one item.

    Example: recsys-spark show item 50 --config conf/demo.toml
    """
    settings = load_config(config)
    _begin(settings)
    from recsys_spark.cli.work import show_item as work

    work(settings, item_id, k)


@models.command("list")
def models_list(config: ConfigOption) -> None:
    """Versions of the registered model, with aliases.

    Example: recsys-spark models list --config conf/demo.toml
    """
    from recsys_spark.cli.model_commands import list_versions

    list_versions(load_config(config))


@models.command("promote")
def models_promote(version: str, config: ConfigOption) -> None:
    """Make a version the champion.

    Example: recsys-spark models promote 3 --config conf/demo.toml
    """
    from recsys_spark.cli.model_commands import promote

    promote(load_config(config), version)


@models.command("rollback")
def models_rollback(config: ConfigOption) -> None:
    """Make the version that the champion replaced the champion again.

    Example: recsys-spark models rollback --config conf/demo.toml
    """
    from recsys_spark.cli.model_commands import rollback as work

    work(load_config(config))


@app.command()
def rollback(config: ConfigOption, to: Annotated[str, typer.Option("--to", help="as_of of the night to return to")]) -> None:
    """Point readers and the champion alias at an earlier night; nothing is recomputed.

    Example: recsys-spark rollback --to 2026-11-21T00:00:00Z --config conf/mine.toml
    """
    settings = load_config(config, to)
    _begin(settings)
    from recsys_spark.cli.work import rollback as work

    work(settings)


@app.command()
def prune(
    config: ConfigOption,
    keep_nights: Annotated[int, typer.Option(min=1, help="published nights that can still be returned to")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, remove nothing")] = False,
    vacuum: Annotated[bool, typer.Option(help="free the files that Delta no longer needs, too")] = True,
) -> None:
    """Remove what older nights left: their lists, evaluations, trainings, and model versions that nobody needs.

    Example: recsys-spark prune --keep-nights 14 --config conf/mine.toml
    """
    settings = load_config(config)
    _begin(settings)
    from recsys_spark.cli.work import prune as work

    work(settings, keep_nights, dry_run, vacuum)


@app.command()
def forget(
    config: ConfigOption,
    user_ids: Annotated[list[str] | None, typer.Argument(help="users, as the log calls them")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="a text file with one user a line")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, remove nothing")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="free the files of older table versions at once, too")] = False,
    welcome: Annotated[bool, typer.Option("--welcome", help="the other way: what they did before may come in again")] = False,
) -> None:
    """Remove all that is kept of users who ask for it; what they did until now stays out, whoever delivers it again.

    Example: recsys-spark forget 4711 --config conf/mine.toml
    """
    settings, users = load_config(config), named_users(user_ids or [], file)
    _begin(settings)
    from recsys_spark.cli import work

    if welcome:
        work.welcome(settings, users)
    else:
        work.forget(settings, users, dry_run, purge)


@app.command()
def doctor() -> None:
    """Check this machine: Java, Python, packages, memory, disk.

    Example: recsys-spark doctor
    """
    from recsys_spark.cli.doctor import check_machine

    check_machine()


@app.command()
def prepare() -> None:
    """Get this machine ready: fetch Delta's jars, and archive Spark's classes so that every later session starts faster.

    Once per environment, and again after Java or a package has changed.

    Example: recsys-spark prepare
    """
    from recsys_spark.cli.prepare import prepare as work

    work()


@app.command()
def contracts() -> None:
    """Print the contracts of all tables.

    Example: recsys-spark contracts
    """
    from recsys_spark.tables.contracts import describe

    typer.echo(describe())


@app.command()
def sql(config: ConfigOption) -> None:
    """Print the SQL that readers join the published tables with.

    Example: recsys-spark sql --config conf/demo.toml
    """
    from recsys_spark.cli.work import reader_sql

    typer.echo(reader_sql(load_config(config)))


def main() -> None:
    """Run the command line; our errors end as one line and their exit code."""
    process.start()
    with process.errors_as_lines():
        app()
