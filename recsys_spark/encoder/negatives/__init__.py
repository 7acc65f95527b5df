"""Where negatives come from beside the batch, and which candidates are none."""

from recsys_spark.encoder.negatives.known_pairs import KnownPairs
from recsys_spark.encoder.negatives.queue import Queue
from recsys_spark.encoder.negatives.sampling import Draw, Sampler, log_in_batch

__all__ = ["Draw", "KnownPairs", "Queue", "Sampler", "log_in_batch"]
