"The order in which photographs are drawn: a pure function of seed, pass and position"
import random
from collections.abc import Callable, Sequence
from contextlib import contextmanager

import numpy as np
import torch

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


def drawn(n: int, seed: int, start: int, stop: int, order: Callable = shuffled) -> np.ndarray:
    "The photographs at positions `start` to `stop` of passes without end, each by `order(n, seed, i)`"
    passes = [order(n, seed, i) for i in range(start // n, -(-stop // n))]
    return np.concatenate(passes)[start % n:][:stop - start]


def _seed_of(seed: int, position: int) -> int:
    return int(np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)[0])


@contextmanager
def item_draws(seed: int, position: int):
    "Python's generator, from which fastai's item transforms draw, gives what belongs to this position"
    state = random.getstate()
    random.seed(_seed_of(seed, position))
    try: yield
    finally: random.setstate(state)


@contextmanager
def batch_draws(seed: int, position: int, device: torch.device | None):
    "Torch's generators, from which batch transforms draw, give what belongs to the batch that starts there"
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(_seed_of(seed, position))
        yield
