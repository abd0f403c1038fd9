"""The bundle that speed is measured with: real data, ranked by the reference graph of design section 7."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.rig import newest_bundle, streamrec_home
from domain.errors import BundleError
from loadtests.evidence import is_reference
from release.bundle import Bundle, read_manifest

FOLDER = "reference-graph"


def reference_bundle(named: Path | None = None) -> Path:
    """``named``, else the newest bundle with the reference graph for a ranker, made once under STREAMREC_HOME.

    Says which on stdout. Raises ``BundleError`` if there is no bundle to make it from.
    """
    folder = named or _made(streamrec_home())
    version = read_manifest(folder).version
    print(f"bundle: {version}, ranked by {'the reference graph' if is_reference(version) else 'its own model'}")
    return folder


def _made(home: Path) -> Path:
    like = newest_bundle(home)
    folder = home / FOLDER / read_manifest(like).version
    from training import reference_graph
    from training.synth import with_reference_graph

    if _loads(folder) and _newer(folder / "manifest.json", Path(reference_graph.__file__)):
        return folder
    scratch = folder.with_name(f".{folder.name}")
    for old in (scratch, folder):
        shutil.rmtree(old, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with_reference_graph(like, scratch)
    scratch.rename(folder)
    return folder


def _loads(folder: Path) -> bool:
    try:
        Bundle.load(folder)
    except BundleError:
        return False
    return True


def _newer(file: Path, program: Path) -> bool:
    """Whether it was written by the program as it is now."""
    return file.stat().st_mtime > program.stat().st_mtime
