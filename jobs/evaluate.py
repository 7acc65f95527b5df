"""spark-submit doorway of the stage 'evaluate'."""

from recsys_spark.jobs import main

if __name__ == "__main__":
    main("evaluate")
