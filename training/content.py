"""Content: items alike in genres, year and title, as each item's nearest neighbours by cosine.

An item's vector is three blocks of unit length each, weighted by ``GENRES``, ``YEAR`` and ``TITLE`` (the squares of the
weights sum to one, so that two items alike in everything have the cosine 1). Nothing is learned from events: an item
that nobody has touched has neighbours like any other.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from domain.arrays import Floats, Mask
from retrieval.neighbours import Neighbours
from training.dataset import Dataset

GENRES, YEAR, TITLE = np.sqrt([0.6, 0.2, 0.2])
YEAR_CENTRES = np.arange(1900.0, 2051.0, 5.0)
YEAR_WIDTH = 5.0
TOP_K = 100
BLOCK_ROWS = 1024


def fit(dataset: Dataset) -> Neighbours:
    """The ``TOP_K`` nearest items of every item that has anything to be compared by."""
    vectors = item_vectors(dataset)
    lengths, rows, weights = [], [], []
    for start in range(0, vectors.shape[0], BLOCK_ROWS):
        cosine = (vectors[start : start + BLOCK_ROWS] @ vectors.T).toarray()
        cosine[np.arange(len(cosine)), start + np.arange(len(cosine))] = 0.0
        for row in cosine:
            near = np.sort(np.argpartition(-row, min(TOP_K, len(row) - 1))[:TOP_K])
            near = near[row[near] > 0]
            lengths.append(len(near))
            rows.append(near.astype(np.int32))
            weights.append(row[near].astype(np.float32))
    indptr = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Neighbours(indptr, np.concatenate(rows), np.concatenate(weights))


def item_vectors(dataset: Dataset) -> sp.csr_matrix:
    """``(n, v)`` sparse, at most unit length; a block that an item has nothing in is zero."""
    titles = [dataset.titles.text(row) for row in range(len(dataset.item_ids))]
    blocks = [GENRES * _genre_block(dataset.genres), YEAR * _year_block(dataset.year), TITLE * _title_block(titles)]
    return sp.hstack(blocks, format="csr").astype(np.float32)


def _genre_block(genres: Mask) -> sp.csr_matrix:
    """Genres weighted by rarity: to share Film-Noir says more than to share Drama."""
    rarity = np.log1p(len(genres) / (1.0 + genres.sum(axis=0)))
    return sp.csr_matrix(_unit(genres * rarity))


def _year_block(year: Floats) -> sp.csr_matrix:
    """Overlapping bumps along time, so that near years are alike and far ones are not."""
    bumps = np.exp(-0.5 * ((year[:, None] - YEAR_CENTRES) / YEAR_WIDTH) ** 2)
    return sp.csr_matrix(_unit(np.where(bumps > 0.05, bumps, 0.0)))  # NaN compares as false: no year, no block


def _title_block(titles: list[str]) -> sp.csr_matrix:
    """TF-IDF over the words that at least two titles share, in any script."""
    words = TfidfVectorizer(min_df=2, max_df=0.05, sublinear_tf=True, strip_accents="unicode")
    try:
        return sp.csr_matrix(words.fit_transform(titles))
    except ValueError:  # no word is shared by two titles: there is no vocabulary
        return sp.csr_matrix((len(titles), 1))


def _unit(
    block: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    length = np.linalg.norm(block, axis=1, keepdims=True)
    return np.divide(block, length, out=np.zeros_like(block, dtype=np.float64), where=length > 0)
