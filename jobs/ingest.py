"""spark-submit doorway of the stage 'ingest'."""

from recsys_spark.jobs import main

if __name__ == "__main__":
    main("ingest")
