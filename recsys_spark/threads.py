"""One thread of arithmetic per process, for all libraries that would start more."""

from __future__ import annotations

import sys


def one_thread() -> None:
    """Keep torch and faiss to one thread in this process: Spark already runs one Python worker per core.

    faiss only where something has loaded it: most workers never search an index. NumPy is all there is without torch.
    """
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(1)
    faiss = sys.modules.get("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(1)
