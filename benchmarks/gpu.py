"""DCN-V2 in ONNX Runtime and FAISS on a GPU, where there is one.

    python -m benchmarks.gpu [--bundle FOLDER] [--items 1000000 10000000] [--json FILE]

Needs the extra ``gpu``. Measured, with the card's name: the bundle's ranker on batches of 1 to 32 requests of 500
candidates, data in and out included; an IVF index (inner product, 64 dimensions, clustered vectors) of each size,
searched for the 300 nearest of 1 and of 32 queries, with the recall against an exact search of 100 queries. Medians of
``ROUNDS``. Ends with status 2, and says why, where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.machine import measured_on
from benchmarks.rig import newest_bundle, streamrec_home
from domain.arrays import Floats
from domain.errors import StartError, StreamRecError
from features.contract import CONTRACT
from release.bundle import Bundle
from retrieval.device import require_gpu

ROUNDS = 30
CANDIDATES = 500
DIMENSIONS = 64
NEAREST = 300
PROBED = 32
BATCHES = (1, 2, 4, 8, 16, 32)


def card() -> str:
    """The GPU's name and driver; raises ``StartError`` where there is none."""
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],  # noqa: S607 - from the driver
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError("no GPU here: nvidia-smi does not run") from error
    return told.stdout.strip()


def ranker(bundle: Bundle) -> dict[str, float]:
    """Milliseconds a run by the number of requests in it; raises ``StartError`` where ONNX Runtime has no CUDA."""
    import onnxruntime

    provider = "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise StartError("onnxruntime here has no CUDA part: install onnxruntime-gpu (the extra `gpu`)")
    session = onnxruntime.InferenceSession(bundle.model_path, providers=[provider])
    if provider not in session.get_providers():
        raise StartError("ONNX Runtime cannot use the GPU here")
    random = np.random.default_rng(0)
    taken = {}
    for batch in BATCHES:
        inputs = {
            "user": random.random((batch, CONTRACT.numeric.width), np.float32),
            "codes": np.ones((batch, len(CONTRACT.context)), np.int32),
            "item_row": random.integers(0, len(bundle.tables.items), (batch, CANDIDATES)).astype(np.int32),
            "columns": random.random((batch, CANDIDATES, len(bundle.manifest.columns)), np.float32),
        }
        taken[f"{batch} x {CANDIDATES}"] = median_ms(lambda given=inputs: session.run(["score"], given))  # type: ignore[misc]
    return taken


def search(items: int) -> dict[str, float]:
    """Milliseconds a search of ``items`` vectors, and the recall at ``NEAREST``."""
    vectors = clustered(items)
    resources = faiss.StandardGpuResources()
    lists = int(4 * items**0.5)
    index = faiss.index_factory(DIMENSIONS, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    on_gpu = faiss.index_cpu_to_gpu(resources, 0, index)
    on_gpu.train(vectors[: 64 * lists])
    on_gpu.add(vectors)
    faiss.GpuParameterSpace().set_index_parameter(on_gpu, "nprobe", PROBED)
    asked = vectors[:: max(1, items // 100)][:100] + np.float32(0.05)
    _, exact = faiss.knn_gpu(resources, asked, vectors, NEAREST, metric=faiss.METRIC_INNER_PRODUCT)
    _, found = on_gpu.search(asked, NEAREST)
    hits = [len(np.intersect1d(one, other)) for one, other in zip(exact, found, strict=True)]
    return {
        "1 query": median_ms(lambda: on_gpu.search(asked[:1], NEAREST)),
        "32 queries": median_ms(lambda: on_gpu.search(asked[:32], NEAREST)),
        "recall": sum(hits) / (len(asked) * NEAREST),
    }


def clustered(items: int) -> Floats:
    """``(items, DIMENSIONS)`` unit vectors around 1,000 centres: uniform ones have no neighbourhoods to find."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((1000, DIMENSIONS), np.float32)
    vectors = centres[random.integers(0, 1000, items)]
    vectors += 0.5 * random.standard_normal((items, DIMENSIONS), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def median_ms(run: Callable[[], Any]) -> float:
    for _ in range(3):
        run()
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        run()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


def main() -> int:
    asking = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asking.add_argument("--bundle", type=Path)
    asking.add_argument("--items", type=int, nargs="+", default=[1_000_000, 10_000_000])
    asking.add_argument("--json", type=Path)
    asked = asking.parse_args()
    try:
        told: dict[str, Any] = {"card": card(), "measured": measured_on()}
        require_gpu()
        told["ranker_ms"] = ranker(Bundle.load(asked.bundle or newest_bundle(streamrec_home())))
        told["search_ms"] = {str(items): search(items) for items in asked.items}
    except StreamRecError as error:
        print(f"nothing measured: {error}", file=sys.stderr)
        return 2
    print(json.dumps(told, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
