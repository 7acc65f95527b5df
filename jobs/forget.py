"""spark-submit doorway for users who ask to be forgotten: all that is kept of them is removed."""

from recsys_spark.jobs import forget

if __name__ == "__main__":
    forget()
