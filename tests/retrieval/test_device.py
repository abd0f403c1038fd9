"""The index where it is searched; a GPU that is not there is refused in words."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from domain.errors import BundleError, StartError
from release.bundle import Bundle
from retrieval.device import open_index


def test_the_index_is_searched_on_the_cpu(tiny_bundle: Bundle) -> None:
    index = open_index(tiny_bundle.index_path, "cpu")
    _, rows = index.search(np.ones((1, index.d), np.float32), 3)
    assert rows.shape == (1, 3)


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this FAISS has a GPU part")
def test_a_gpu_without_its_faiss_is_refused_by_name(tiny_bundle: Bundle) -> None:
    with pytest.raises(StartError, match="faiss-gpu"):
        open_index(tiny_bundle.index_path, "gpu")


def test_what_is_no_index_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "index.faiss").write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match=r"index\.faiss"):
        open_index(tmp_path / "index.faiss", "cpu")
