"""spark-submit doorway of a whole night: all stages in order, in one Spark application."""

from recsys_spark.jobs import main

if __name__ == "__main__":
    main("night")
