"""A draw from rows."""

from __future__ import annotations

import numpy as np

from domain.arrays import drawn


def test_rows_are_drawn_by_the_seed_without_repeats_and_everybody_has_a_chance() -> None:
    rows = np.arange(100, 130, dtype=np.int32)
    draws = [drawn(rows, 10, seed).tolist() for seed in range(200)]
    assert all(len(some) == 10 and some == sorted(set(some)) for some in draws)
    assert draws == [drawn(rows, 10, seed).tolist() for seed in range(200)]
    assert {row for some in draws for row in some} == set(rows.tolist())
    assert drawn(rows, 30, 7).tolist() == rows.tolist()
