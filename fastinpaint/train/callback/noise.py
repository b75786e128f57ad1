"Noise for the training of generators that are told of it"
from contextlib import contextmanager

import numpy as np
import torch

from ...core.errors import InputError
from ...core.ranks import rank, world
from ...models.fcf import FcF
from .fit import FitCallback


class StyleNoise(FitCallback):
    """Gives an `FcF` new noise for each image of a training batch; validation has that of its seed.

    It depends on `seed` and the number of the step alone. Raises InputError for another network."""
    def __init__(self, seed=0): self.seed = seed

    @contextmanager
    def during_fit(self):
        if not isinstance(self.model, FcF):
            raise InputError(f"{type(self.model).__name__} takes no noise: expected an fcf")
        yield

    def before_batch(self):
        if not (self.in_fit and self.training): return
        n, rng = len(self.xb[0]), np.random.default_rng([self.seed, self.train_iter])
        noise = rng.standard_normal((world()*n, self.model.n_noise), np.float32)  # of all processes
        self.learn.xb = *self.xb, torch.from_numpy(noise[rank()*n:(rank() + 1)*n]).to(self.xb[0].device)
