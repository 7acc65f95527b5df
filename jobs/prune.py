"""spark-submit doorway of the housekeeping after nights: what nobody can return to any more is removed."""

from recsys_spark.jobs import prune

if __name__ == "__main__":
    prune()
