"""spark-submit doorway of the stage 'cooccurrence'."""

from recsys_spark.jobs import main

if __name__ == "__main__":
    main("cooccurrence")
