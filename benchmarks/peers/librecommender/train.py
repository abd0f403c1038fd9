"""Train LibRecommender's ALS on ratings and store it as its own documentation of the embed mode says.

    python train.py RATINGS.csv FOLDER REDIS_PORT REDIS_DB

Runs in the environment of requirements.txt, not in ours. The CSV has the columns user, item, label.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import libserving
import pandas as pd
from libreco.algorithms import ALS
from libreco.data import DatasetPure
from libserving.serialization import embed2redis, save_embed, save_faiss_index


def main() -> None:
    ratings, folder, port, database = sys.argv[1:]
    train_set, facts = DatasetPure.build_trainset(pd.read_csv(ratings))
    model = ALS(task="ranking", data_info=facts, embed_size=32, n_epochs=10, reg=5.0, alpha=10, n_threads=1, seed=42)
    model.fit(train_set, neg_sampling=True, verbose=1)
    save_embed(folder, model)
    save_faiss_index(folder, model)
    embed2redis(folder, host="127.0.0.1", port=int(port), db=int(database))
    # The server looks for the index below its own package.
    shutil.copyfile(Path(folder) / "faiss_index.bin", Path(libserving.__file__).parent / "faiss_index.bin")


if __name__ == "__main__":
    main()
