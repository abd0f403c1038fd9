"""Every library of training on one thread: the same sums in the same order, so the same data and seed give the same
models; and more threads than free cores make the towers many times slower.
"""

from __future__ import annotations

import faiss
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no stubs

THREADS = 1


def single_threaded() -> None:
    """For the rest of the process."""
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    threadpool_limits(limits=THREADS)
