"""The command line: every command here, each answering --help with an example."""

from recsys_spark.cli.main import app, main

__all__ = ["app", "main"]
