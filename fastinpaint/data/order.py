"The order of training photographs: a pure function of seed, pass and position"
from collections.abc import Sequence

import numpy as np

WINDOW = 8  # shards that a pass reads at a time


def shuffled(n: int, seed: int, i: int) -> np.ndarray:
    "Indices of pass `i` through `n` photographs"
    return np.random.default_rng([seed, i]).permutation(n)


def shuffled_shards(counts: Sequence[int], seed: int, i: int, window: int = WINDOW):
    """Indices of pass `i` through photographs that lie shard by shard, `counts` of each; the shards in turn.

    Shards come in a random order, and each gives its photographs over the length of `window` shards: so many
    are mixed everywhere, those of the end also at the start, and no more have to be at hand."""
    counts, rng = np.asarray(counts), np.random.default_rng([seed, i])
    turns, n = rng.permutation(np.flatnonzero(counts)), counts.sum()
    begins = np.zeros(len(counts))
    begins[turns] = np.cumsum(counts[turns]) - counts[turns]
    delays = rng.random(n)*min(n, window*n/len(turns))
    return np.argsort((np.repeat(begins, counts) + delays) % n, kind="stable"), turns
