"""spark-submit doorway of the stage 'embed'."""

from recsys_spark.jobs import main

if __name__ == "__main__":
    main("embed")
