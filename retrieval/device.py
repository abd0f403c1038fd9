"""Where FAISS searches: on the CPU in a memory-mapped index, or on a GPU that holds a copy of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import faiss

from domain.errors import BundleError, StartError

Device = Literal["cpu", "gpu"]


def open_index(path: Path, device: Device) -> Any:
    """The index, ready to search; raises ``StartError`` where there is no GPU, ``BundleError`` for what is no index."""
    if device == "gpu":
        require_gpu()
    faiss.omp_set_num_threads(1)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP if device == "cpu" else 0)
    except RuntimeError as error:
        raise BundleError(f"{path.name} is not an index ({error})") from error
    return index if device == "cpu" else faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def require_gpu() -> None:
    """Raise ``StartError`` unless FAISS can use a GPU here."""
    if not hasattr(faiss, "StandardGpuResources"):
        raise StartError(f"faiss {faiss.__version__} here has no GPU part: install faiss-gpu (the extra `gpu`)")
    if not faiss.get_num_gpus():
        raise StartError("FAISS finds no GPU here")
