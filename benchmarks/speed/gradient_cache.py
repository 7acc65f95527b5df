"""Peak memory of a step on 8,192 pairs, with the gradient cache and without: ``python -m benchmarks.speed.gradient_cache``.

Each way is a process of its own. Its peak is what its tensors took, and what the operating system counted (which is more:
freed memory that the allocator keeps), each less that of a process that builds the same and takes no step. Default sizes:
10,000 items, text vectors of 384, vectors of 128. Ends with one JSON line.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.distributed import Ranks
from recsys_spark.training.feed.batch import Batch
from recsys_spark.training.step.train_step import TrainStep

NUM_ITEMS, TEXT_DIM, PAIRS, SMALL = 10_000, 384, 8_192, 256
WAYS: dict[str, tuple[int, int | None]] = {  # name -> (pairs, rows at a time)
    "nothing": (0, None),
    "small": (SMALL, None),
    "whole": (PAIRS, None),
    "cached": (PAIRS, SMALL),
}


def main() -> None:
    """Without arguments all ways, each in a process; with one, that way."""
    if len(sys.argv) == 2:
        print(json.dumps(one(*WAYS[sys.argv[1]])))
        return
    found = {}
    for name in WAYS:
        command = [sys.executable, "-m", "benchmarks.speed.gradient_cache", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    base = found.pop("nothing")
    for way in found.values():
        way |= {name: round(way[name] - base[name], 1) for name in ("peak_mib", "tensors_mib")}
    print(json.dumps({"row": "gradient-cache", "pairs": PAIRS, "rows_at_a_time": SMALL, **found}))


def one(num_pairs: int, chunk: int | None) -> dict[str, float]:
    """One way: the seconds and the peak of this process in a first pass, the peak of its tensors in a second; MiB."""
    start = time.perf_counter()
    one_pass(num_pairs, chunk)
    seconds = round(time.perf_counter() - start, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        one_pass(num_pairs, chunk)
    moments = [(e.start_ns(), e.nbytes()) for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([size for _, size in sorted(moments)])
    return {"peak_mib": peak, "tensors_mib": float(held.max()) / 2**20, "seconds": seconds}


def one_pass(num_pairs: int, chunk: int | None) -> None:
    """Build the step; forward and backward, where there are pairs."""
    rng = np.random.default_rng(0)
    ids = [str(n) for n in range(NUM_ITEMS)]
    text = rng.normal(size=(NUM_ITEMS, TEXT_DIM)).astype(np.float32)
    catalogue = Catalogue(np.arange(NUM_ITEMS), np.arange(NUM_ITEMS), ids, text)
    torch.manual_seed(0)
    settings = TrainSettings(negatives="in_batch", cache_chunk_size=chunk, item_item_share=1.0)
    encoder, alone = Encoder(EncoderSettings(), TEXT_DIM, NUM_ITEMS), Ranks(0, 1, torch.device("cpu"), None, None)
    step = TrainStep(encoder, catalogue, settings, alone)
    nobody = torch.zeros((0, 2), dtype=torch.int64)
    if num_pairs:
        pairs = torch.tensor(rng.integers(0, NUM_ITEMS, size=(num_pairs, 2)))
        torch.autograd.backward(step(Batch(nobody, torch.ones(0), pairs, torch.ones(num_pairs))).loss)


if __name__ == "__main__":
    main()
