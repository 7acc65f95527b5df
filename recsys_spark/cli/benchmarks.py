"""The commands that measure by published protocols; each ends with one JSON line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

benchmark = typer.Typer(no_args_is_help=True, help="Published protocols; each ends with one JSON line.")


@benchmark.command("ml100k-sar")
def benchmark_sar(data: Annotated[Path | None, typer.Option("--data", help="folder with ml-100k.inter")] = None) -> None:
    """Protocol proof: the SAR row of the recommenders-team table, to six decimals.

    Example: recsys-spark benchmark ml100k-sar
    """
    from recsys_spark.cli.work import benchmark_sar as work

    work(data)


@benchmark.command("ml100k")
def benchmark_ml100k(
    data: Annotated[Path | None, typer.Option("--data", help="folder with ml-100k.inter and ml-100k.item")] = None,
    seeds: Annotated[int, typer.Option(help="how many seeds", min=1)] = 1,
    config: Annotated[Path | None, typer.Option("--config", help="TOML with sections that replace the defaults")] = None,
    work: Annotated[Path, typer.Option(help="where the tables go")] = Path("work/benchmark-ml100k"),
    results: Annotated[Path, typer.Option(help="where finished rows are kept")] = Path("benchmarks/results/quality"),
) -> None:
    """The recommenders-team table of MovieLens-100K: 75% of each item's ratings are train, NDCG@10 and MAP over all items.

    Example: recsys-spark benchmark ml100k --seeds 3
    """
    from recsys_spark.cli.work import benchmark_ml100k as run

    run(data, seeds, config, work, results)


@benchmark.command("leave-one-out")
def benchmark_leave_one_out(
    data: Annotated[Path, typer.Option("--data", help="folder with events.parquet and perhaps items.parquet")],
    cold_items: Annotated[float, typer.Option(help="share of items hidden from everything but the test", min=0, max=0.9)] = 0.0,
    seeds: Annotated[int, typer.Option(help="how many seeds (draws)", min=1)] = 1,
    config: Annotated[Path | None, typer.Option("--config", help="TOML with sections that replace the defaults")] = None,
    warehouse: Annotated[Path, typer.Option(help="where the tables go")] = Path("work/benchmark"),
    results: Annotated[Path, typer.Option(help="where finished rows are kept")] = Path("benchmarks/results/quality"),
) -> None:
    """Leave-one-out on any folder, with the production stages, beside published rows and each partner alone.

    Example: recsys-spark benchmark leave-one-out --data DIR --cold-items 0.05 --seeds 5
    """
    from recsys_spark.cli.work import benchmark_leave_one_out as work

    work(data, cold_items, seeds, config, warehouse, results)
