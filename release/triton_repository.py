"""Triton's model repository: ``HOME/triton/dcn_v2/config.pbtxt`` and one folder a version, named by its number.

Triton reloads a version whose files changed, so a version appears whole by one rename, is never touched again, and
leaves by another rename. Half-written folders live beside the repository, where Triton does not look.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

from domain.errors import PublishError, StartError
from features.contract import CONTRACT
from release.bundle import Bundle

MODEL_NAME = "dcn_v2"
SOURCE = Path(__file__).resolve().parents[1] / "triton_repo" / MODEL_NAME

Platform = Literal["python", "onnxruntime"]
Device = Literal["cpu", "gpu", "tensorrt"]
ONNX_NAMES: dict[Platform, str] = {"python": "dcn_v2.onnx", "onnxruntime": "model.onnx"}

TENSORRT = """# Full precision, so that the parity check of publishing holds. An engine is built for each new shape.
optimization { execution_accelerators { gpu_execution_accelerator : [ {
  name : "tensorrt"
  parameters { key: "precision_mode" value: "FP32" }
  parameters { key: "trt_engine_cache_enable" value: "true" }
} ] } }
"""


@dataclass(frozen=True, slots=True)
class TritonRepository:
    """The repository under ``home``.

    ``platform`` is what a version consists of. "python": ``model.py`` and ``dcn_v2.onnx``, run by the Python
    backend that the PyPI wheel carries (a file called ``model.onnx`` would ask for another backend). "onnxruntime":
    ``model.onnx`` alone, for the ONNX Runtime backend of NVIDIA's image; untested, nothing here runs that image.
    """

    home: Path
    platform: Platform = "python"
    instances: int = 1  # runs at the same time, one thread each
    device: Device = "cpu"  # "tensorrt": on a GPU, and ONNX Runtime hands over to TensorRT what that can run

    def __post_init__(self) -> None:
        if self.device != "cpu" and self.platform != "onnxruntime":
            raise StartError("a GPU is used through Triton's platform onnxruntime; the Python backend runs on the CPU")

    @property
    def root(self) -> Path:
        """What ``--model-repository`` names."""
        return self.home / "triton"

    @property
    def model(self) -> Path:
        return self.root / MODEL_NAME

    @property
    def _unfinished(self) -> Path:
        return self.home / "triton-unfinished"

    def versions(self) -> tuple[int, ...]:
        """The numbers that are there, ascending."""
        return numbered(self.model)

    def render(self, bundle: Bundle, number: int) -> Path:
        """Add version ``number`` made from ``bundle``; raises ``PublishError`` if the number is taken."""
        folder = self.model / str(number)
        if folder.exists():
            raise PublishError(f"{folder} exists already")
        self.model.mkdir(parents=True, exist_ok=True)
        self._write_config(bundle)
        scratch = self._unfinished / str(number)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        link_or_copy(bundle.model_path, scratch / ONNX_NAMES[self.platform])
        if self.platform == "python":
            shutil.copyfile(SOURCE / "1" / "model.py", scratch / "model.py")
            # The backend's interpreter ignores PYTHONDONTWRITEBYTECODE, and a __pycache__ folder that appears in a
            # version makes Triton reload it. A file of that name keeps the folder from being made.
            (scratch / "__pycache__").touch()
        scratch.rename(folder)
        return folder

    def remove(self, number: int) -> None:
        """Take version ``number`` out; Triton unloads it at the next load call. Not being there is fine."""
        scratch = self._unfinished / f"removed-{number}"
        shutil.rmtree(scratch, ignore_errors=True)
        self._unfinished.mkdir(parents=True, exist_ok=True)
        try:
            (self.model / str(number)).rename(scratch)
        except FileNotFoundError:
            return
        shutil.rmtree(scratch, ignore_errors=True)

    def config(self, bundle: Bundle) -> str:
        """``config.pbtxt`` with the dimensions of the contract and of the bundle's candidate columns."""
        kind = "KIND_CPU" if self.device == "cpu" else "KIND_GPU"
        text = Template((SOURCE / "config.pbtxt").read_text()).substitute(
            kind=kind,
            user=CONTRACT.numeric.width,
            codes=len(CONTRACT.context),
            columns=len(bundle.manifest.columns),
            instances=self.instances,
        )
        return text + TENSORRT if self.device == "tensorrt" else text

    def _write_config(self, bundle: Bundle) -> None:
        """Only if it differs: a new modification time makes Triton reload every version."""
        path, text = self.model / "config.pbtxt", self.config(bundle)
        if path.exists() and path.read_text() == text:
            return
        self._unfinished.mkdir(parents=True, exist_ok=True)
        scratch = self._unfinished / "config.pbtxt"
        scratch.write_text(text)
        scratch.replace(path)


def numbered(folder: Path) -> tuple[int, ...]:
    """The folders in ``folder`` whose names are numbers, ascending; empty if there is none."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()))


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A hard link where the file system allows one; published files never change, so sharing is safe."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
