"""The two towers: a user vector from the current history, an item vector from the item's id and its features.

P. Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016, for the averaged history; X. Yi et
al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019, for the correction
by log Q where negatives are sampled.

One example is a user at an earlier moment of their history, with their likes and features of that moment; its targets
are the next likes. The loss is the cross-entropy of the targets in the softmax over the catalogue, or over sampled
items where the catalogue is large.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from domain.arrays import Floats, Rows
from domain.catalogue import History
from features.contract import CONTRACT
from features.definitions import ItemFacts, positive
from retrieval.two_tower import MAX_HISTORY, UserTower, history_shares
from training.split import Cut
from training.stored import numeric_at

EMBEDDING, HIDDEN, VECTOR = 64, 128, 64
MOMENTS = 24  # examples a user and epoch at most
TARGETS = 10  # next likes of an example
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 10, 256, 5e-3, 1e-5
DROPOUT, HISTORY_DROPOUT = 0.5, 0.2
TEMPERATURE = 0.5
WHOLE_CATALOGUE = 20_000  # up to so many items the softmax is over all of them
SAMPLED = 4096  # otherwise over so many, drawn by popularity
FLAT_INDEX_ITEMS = 100_000  # from here on an inverted file; below, exact search is as fast
IVF_PROBED_SHARE = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """``m`` users at earlier moments; histories and targets are padded with -1."""

    liked: NDArray[np.int64]  # (m, MAX_HISTORY), latest last
    share: Floats  # (m, MAX_HISTORY): how much of the history's mean each is
    numeric: Floats  # (m, U) scaled as the models see it
    target: NDArray[np.int64]  # (m, TARGETS)


class Towers(nn.Module):
    """Both towers; the user's is exported as ``retrieval.two_tower.UserTower``, the item's as vectors."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, items: int, features: int, numeric_mean: Floats, numeric_scale: Floats) -> None:
        super().__init__()
        self.history = nn.Embedding(items, EMBEDDING)
        self.hidden = nn.Linear(EMBEDDING + len(numeric_mean), HIDDEN)
        self.out = nn.Linear(HIDDEN, VECTOR)
        self.item = nn.Embedding(items, VECTOR)
        self.content = nn.Linear(features, VECTOR)
        for embedding in (self.history, self.item):
            nn.init.normal_(embedding.weight, std=0.1)
        self.register_buffer("mean", torch.from_numpy(numeric_mean))
        self.register_buffer("scale", torch.from_numpy(numeric_scale))
        self.dropout = nn.Dropout(DROPOUT)

    def user_vector(self, liked: torch.Tensor, share: torch.Tensor, numeric: torch.Tensor) -> torch.Tensor:
        """``(b, d)`` of unit length."""
        pooled = nn.functional.embedding_bag(liked, self.history.weight, per_sample_weights=share, mode="sum")
        standard = (numeric - self.mean) / self.scale
        hidden = torch.relu(self.hidden(self.dropout(torch.cat([pooled, standard], dim=1))))
        return nn.functional.normalize(self.out(self.dropout(hidden)), dim=1)

    def item_vector(self, rows: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """``(n, d)``; their length is free, which is where popularity finds its place."""
        return self.item(rows) + self.content(features[rows])


def fit(cut: Cut, item_features: Floats, facts: ItemFacts, seed: int) -> tuple[UserTower, Floats]:
    """The user tower and the item vectors ``(n, d)`` learned from the events before the cut."""
    torch.manual_seed(seed)
    examples = make_examples(cut, facts)
    mean, scale = examples.numeric.mean(axis=0), np.maximum(examples.numeric.std(axis=0), 1e-2)
    features = torch.from_numpy(standardised(item_features))
    towers = Towers(len(features), features.shape[1], mean, scale)
    _train(towers, examples, features, log_popularity(cut), np.random.default_rng(seed))
    towers.eval()
    with torch.no_grad():
        vectors = towers.item_vector(torch.arange(len(features)), features).numpy()
    return exported(towers, mean, scale), vectors


def build_index(vectors: Floats, flat_below: int = FLAT_INDEX_ITEMS) -> faiss.Index:
    """Inner product: exact below so many items, an inverted file from there on."""
    n, d = vectors.shape
    flat = faiss.IndexFlatIP(d)
    if n < flat_below:
        flat.add(vectors)
        return flat
    lists = int(4 * np.sqrt(n))
    inverted = faiss.index_factory(d, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    inverted.train(vectors)
    inverted.add(vectors)
    faiss.extract_index_ivf(inverted).nprobe = max(1, int(lists * IVF_PROBED_SHARE))
    return inverted


def standardised(item_features: Floats) -> Floats:
    """``(n, I)``: scaled as the models see them, then to zero mean and unit deviation."""
    scaled = CONTRACT.item.scaled(item_features)
    return ((scaled - scaled.mean(axis=0)) / np.maximum(scaled.std(axis=0), 1e-2)).astype(np.float32)


def log_popularity(cut: Cut) -> Floats:
    """``(n,)``: log of each item's share of the known events, one added to each."""
    counts = np.bincount(cut.dataset.item_row[cut.known], minlength=len(cut.dataset.item_ids)) + 1.0
    return np.log(counts / counts.sum()).astype(np.float32)


def make_examples(cut: Cut, facts: ItemFacts) -> Examples:
    """Each user with at least two known likes, at up to ``MOMENTS`` evenly spaced moments when a like was to come."""
    rows = [row for user in range(len(cut.length)) for row in _of_user(user, cut.history(user), facts)]
    if not rows:
        nobody = np.full((1, MAX_HISTORY), -1)
        return Examples(nobody, np.zeros((1, MAX_HISTORY), np.float32), _no_numeric(), np.full((1, TARGETS), -1))
    users, moments = [user for user, _, _, _ in rows], np.array([moment for _, moment, _, _ in rows])
    numeric = numeric_at(cut.dataset, users, [cut.history(user) for user in users], moments, facts)
    liked = np.stack([_padded(likes, MAX_HISTORY) for _, _, likes, _ in rows])
    share = np.stack([_padded_shares(len(likes)) for _, _, likes, _ in rows])
    target = np.stack([_padded(targets, TARGETS) for _, _, _, targets in rows])
    return Examples(liked, share, CONTRACT.numeric.scaled(numeric), target)


def _no_numeric() -> Floats:
    return CONTRACT.numeric.scaled(CONTRACT.numeric.defaults)[None]


def _of_user(user: int, history: History, facts: ItemFacts) -> list[tuple[int, float, Rows, Rows]]:
    """(user, moment, likes so far, next likes) at each moment: likes are those before the first target."""
    at = np.flatnonzero(positive(history, facts.positive_stars))
    if len(at) < 2:
        return []
    found = []
    for k in np.unique(np.linspace(1, len(at) - 1, MOMENTS).round().astype(int)).tolist():
        moment = float(np.floor(history.timestamp[at[k]]))
        likes, targets = history.item_row[at[:k]][-MAX_HISTORY:], history.item_row[at[k : k + TARGETS]]
        found.append((user, moment, likes, targets))
    return found


def _padded(rows: Rows, width: int) -> NDArray[np.int64]:
    out = np.full(width, -1, np.int64)
    out[: len(rows)] = rows
    return out


def _padded_shares(h: int) -> Floats:
    out = np.zeros(MAX_HISTORY, np.float32)
    out[:h] = history_shares(h)
    return out


def _train(towers: Towers, examples: Examples, features: torch.Tensor, log_q: Floats, rng: np.random.Generator) -> None:
    liked, share = torch.from_numpy(examples.liked.clip(0)), torch.from_numpy(examples.share)
    numeric, target = torch.from_numpy(examples.numeric), torch.from_numpy(examples.target)
    steps = EPOCHS * -(-len(liked) // BATCH)
    optimiser = torch.optim.AdamW(towers.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    towers.train()
    for _ in range(EPOCHS):
        order = torch.from_numpy(rng.permutation(len(liked)))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            heard = share[chosen] * (torch.rand(share[chosen].shape) > HISTORY_DROPOUT)
            heard = heard / heard.sum(dim=1, keepdim=True).clamp(min=1e-6)
            user = towers.user_vector(liked[chosen], heard, numeric[chosen])
            if len(features) <= WHOLE_CATALOGUE:
                loss = catalogue_loss(towers, user, target[chosen], features)
            else:
                loss = sampled_loss(towers, user, target[chosen], features, log_q, rng)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()


def catalogue_loss(towers: Towers, user: torch.Tensor, target: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the targets ``(b, t)``, -1 for none, in the softmax over all items."""
    logits = user @ towers.item_vector(torch.arange(len(features)), features).T / TEMPERATURE
    normaliser = torch.logsumexp(logits, dim=1, keepdim=True)
    return _mean(normaliser - logits.gather(1, target.clamp(min=0)), target)


def sampled_loss(
    towers: Towers,
    user: torch.Tensor,
    target: torch.Tensor,
    features: torch.Tensor,
    log_q: Floats,
    rng: np.random.Generator,
) -> torch.Tensor:
    """The same, with the other items' part of the sum estimated from ``SAMPLED`` items drawn by ``q``.

    Less log q each, a popular item that is drawn often does not count more than it should.
    """
    drawn = torch.from_numpy(rng.choice(len(features), SAMPLED, p=np.exp(log_q) / np.exp(log_q).sum()))
    others = user @ towers.item_vector(drawn, features).T / TEMPERATURE - torch.from_numpy(log_q)[drawn]
    normaliser = torch.logsumexp(others, dim=1, keepdim=True) - np.log(SAMPLED)
    vectors = towers.item_vector(target.clamp(min=0).flatten(), features).reshape(*target.shape, -1)
    return _mean(normaliser - torch.einsum("bd,btd->bt", user, vectors) / TEMPERATURE, target)


def _mean(loss: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    there = (target >= 0).float()
    return (loss * there).sum() / there.sum().clamp(min=1.0)


def exported(towers: Towers, mean: Floats, scale: Floats) -> UserTower:
    def array(parameter: torch.Tensor) -> Floats:
        return parameter.detach().numpy().copy()

    return UserTower(
        embedding=array(towers.history.weight),
        mean=mean,
        scale=scale,
        hidden_weight=array(towers.hidden.weight),
        hidden_bias=array(towers.hidden.bias),
        out_weight=array(towers.out.weight),
        out_bias=array(towers.out.bias),
    )
