"""An index that reads well and is of other items than the bundle's is refused like a damaged one."""

import json
from pathlib import Path

import faiss
import numpy as np
import pytest

from app.serving import open_serving
from app.settings import Settings
from domain.errors import StartError
from release.bundle import INDEX, MANIFEST, PUBLICATION, sha256
from tests import tiny_bundle as tiny


@pytest.mark.parametrize(("items", "width"), [(tiny.ITEMS - 1, tiny.VECTOR), (tiny.ITEMS, tiny.VECTOR + 1)])
async def test_an_index_of_other_items_or_of_another_tower_is_refused(
    tmp_path: Path, free_port, items: int, width: int
) -> None:
    folder = tmp_path / "bundles" / "1"
    folder.parent.mkdir()
    tiny.make(folder)
    index = faiss.IndexFlatIP(width)
    index.add(np.ones((items, width), np.float32))
    faiss.write_index(index, str(folder / INDEX))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][INDEX]["sha256"] = sha256(folder / INDEX)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / PUBLICATION).write_text(json.dumps({"number": 1, "published_at": 1000.0}))
    (tmp_path / "current").symlink_to(folder)
    settings = Settings(home=tmp_path, redis_port=free_port(), triton_grpc_port=free_port())
    with pytest.raises(StartError, match=f"holds {items} x {width}"):
        await open_serving(settings)
