"""``python -m recsys_spark.cli``."""

from recsys_spark.cli.main import main

main()
