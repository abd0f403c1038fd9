"""What Triton is told to run the model on."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import StartError
from release.bundle import Bundle
from release.triton_repository import TritonRepository


def test_the_cpu_is_named(tmp_path: Path, tiny_bundle: Bundle) -> None:
    assert "count: 2 kind: KIND_CPU" in TritonRepository(tmp_path, instances=2).config(tiny_bundle)


def test_a_gpu_is_asked_for_without_tensorrt(tmp_path: Path, tiny_bundle: Bundle) -> None:
    config = TritonRepository(tmp_path, "onnxruntime", device="gpu").config(tiny_bundle)
    assert "kind: KIND_GPU" in config
    assert "tensorrt" not in config


def test_tensorrt_takes_over_what_it_can(tmp_path: Path, tiny_bundle: Bundle) -> None:
    config = TritonRepository(tmp_path, "onnxruntime", device="tensorrt").config(tiny_bundle)
    assert "kind: KIND_GPU" in config
    assert 'name : "tensorrt"' in config


@pytest.mark.parametrize("device", ["gpu", "tensorrt"])
def test_the_python_backend_has_no_gpu(tmp_path: Path, device: str) -> None:
    with pytest.raises(StartError, match="onnxruntime"):
        TritonRepository(tmp_path, "python", device=device)  # type: ignore[arg-type]
