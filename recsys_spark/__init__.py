"""recsys-spark: batch recommendations from event logs and item text, on Spark and PyTorch."""

__version__ = "0.1.0"
