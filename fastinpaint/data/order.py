"The order in which photographs are drawn: a pure function of the seed and the position"
import random
from contextlib import contextmanager

import numpy as np
import torch


def shuffled(n: int, seed: int, i: int) -> np.ndarray:
    "Pass `i` through `n` photographs, `[n]`"
    return np.random.default_rng([seed, i]).permutation(n)


def drawn(n: int, seed: int, start: int, stop: int) -> np.ndarray:
    "The photographs at positions `start` to `stop` of passes without end"
    passes = [shuffled(n, seed, i) for i in range(start // n, -(-stop // n))]
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
