"""What people assemble from the documentation: FastAPI, Feast's SDK, FAISS and the synchronous tritonclient.

    python -m benchmarks.peers.assembled.service PORT BUNDLE FOLDER

Each part as its own documentation shows it: pydantic models in and out, a plain ``def`` endpoint (which FastAPI runs in
its thread pool), ``get_online_features`` for the user and for the 500 items that FAISS finds, ``InferInput`` and
``infer``. No re-ranking, no fallbacks, no other sources, and the users' vectors are made beforehand, which favours it.
The model is the very one that ours asks, on the same Triton, and takes a row for an item, so what Feast says of the
items is fetched and laid out but not sent. Redis and Triton are named by our own settings.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import tritonclient.grpc as triton
import uvicorn
from fastapi import FastAPI, HTTPException
from feast import FeatureStore
from numpy.typing import NDArray
from pydantic import BaseModel

from app.settings import Settings
from benchmarks.peers.assembled.store import names, open_store
from domain.arrays import Floats
from features.contract import CONTRACT
from features.definitions import positive
from release.bundle import Bundle
from retrieval.two_tower import MAX_HISTORY

CANDIDATES = 500


class Asked(BaseModel):
    user_id: str
    limit: int = 20


class Recommended(BaseModel):
    item_id: str
    title: str
    score: float


class Answer(BaseModel):
    items: list[Recommended]


@dataclass
class Assembled:
    """Everything a request needs."""

    bundle: Bundle
    store: FeatureStore
    index: Any
    client: Any
    vectors: Floats  # (users, d)

    def recommend(self, asked: Asked) -> Answer:
        """Find, fetch, rank, sort."""
        tables = self.bundle.tables
        row = tables.users.ids.row(asked.user_id)
        if row < 0:
            raise HTTPException(404, "unknown user")
        similarity, found = self.index.search(self.vectors[row][None], CANDIDATES)
        user = self._features("user", [asked.user_id])
        self._features("item", [tables.items.ids.text(int(item)) for item in found[0]])
        score = self._rank(user[0], found[0].astype(np.int32), similarity[0])
        best = np.argsort(-score)[: asked.limit]
        return Answer(
            items=[
                Recommended(
                    item_id=tables.items.ids.text(int(found[0][at])),
                    title=tables.items.titles.text(int(found[0][at])),
                    score=float(score[at]),
                )
                for at in best
            ]
        )

    def _features(self, kind: str, ids: list[str]) -> Floats:
        """``(n, width)`` through the SDK."""
        width = (CONTRACT.user if kind == "user" else CONTRACT.item).width
        wanted = [f"{kind}s:{name}" for name in names(kind, width)]
        told = self.store.get_online_features(
            features=wanted, entity_rows=[{f"{kind}_id": one} for one in ids]
        ).to_dict()
        columns = [np.array(told[name], np.float32) for name in names(kind, width)]
        return np.stack(columns, axis=1)

    def _rank(self, stored: Floats, item_row: NDArray[np.int32], similarity: Floats) -> Floats:
        """``(n,)`` from Triton; of the session and of the other sources nothing is known."""
        user = np.zeros((1, CONTRACT.numeric.width), np.float32)
        user[0, : len(stored)] = stored
        columns = np.zeros((1, len(item_row), len(self.bundle.manifest.columns)), np.float32)
        columns[0, :, 0] = similarity
        tensors = {
            "user": user, "codes": np.zeros((1, len(CONTRACT.context)), np.int32),
            "item_row": item_row[None], "columns": columns,
        }  # fmt: skip
        inputs = []
        for name, values in tensors.items():
            tensor = triton.InferInput(name, values.shape, "FP32" if values.dtype == np.float32 else "INT32")
            tensor.set_data_from_numpy(values)
            inputs.append(tensor)
        publication = self.bundle.publication
        answer = self.client.infer("dcn_v2", inputs, model_version=str(publication.number) if publication else "")
        scores: Floats = answer.as_numpy("score")[0]
        return scores


def user_vectors(bundle: Bundle) -> Floats:
    """``(users, d)`` of the two-tower model."""
    tables = bundle.tables
    session = np.zeros(CONTRACT.numeric.width - CONTRACT.user.width, np.float32)
    vectors = []
    for row in range(len(tables.users)):
        history = tables.users.history(row)
        liked = history.only(positive(history, bundle.manifest.dataset.positive_stars)).latest(MAX_HISTORY)
        known = liked if len(liked) else history
        vectors.append(tables.user_tower.vector(known, np.concatenate([tables.users.features[row], session])))
    return np.stack(vectors)


def main() -> None:
    port, bundle_path, folder = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    settings = Settings.from_environment(os.environ)
    bundle = Bundle.load(bundle_path)
    assembled = Assembled(
        bundle=bundle,
        store=open_store(settings.redis_address, folder),
        index=faiss.read_index(str(bundle.index_path)),
        client=triton.InferenceServerClient(settings.triton_address),
        vectors=user_vectors(bundle),
    )
    app = FastAPI()

    @app.get("/readyz")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/recommend", response_model=Answer)
    def recommend(asked: Asked) -> Answer:
        return assembled.recommend(asked)

    uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    main()
