"Where the time of a training step goes"
import json
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from ...core.files import replacing
from ...core.ranks import is_main
from .fit import FitCallback

PARTS = "data", "targets", "encode", "refine", "decode", "loss", "backward", "optimizer"


class StepTimes(FitCallback):
    """Writes median seconds of each of `PARTS`, over every `every`-th step, to `path` as JSON.

    `targets` are what callbacks prepare; `decode` and `backward` include a discriminator's."""
    order = -20  # before all other callbacks of a batch
    in_lr_find = False
    def __init__(self, path, every=10):
        self.path, self.every, self.seconds, self.measuring = Path(path), every, [], False

    @contextmanager
    def during_fit(self):
        refiner = self.model.refiner
        with (self.model.register_forward_pre_hook(lambda *_: self._end("targets")),
              refiner.register_forward_pre_hook(lambda *_: self._end("encode")),
              refiner.register_forward_hook(lambda *_: self._end("refine"))): yield
        if self.seconds and is_main():
            found = {part: median(s[part] for s in self.seconds) for part in PARTS}
            with replacing(self.path) as f: f.write(json.dumps(found, indent=1).encode())

    def before_train(self): self.ended = None  # a validation is no loading of data

    def before_batch(self):
        self.measuring = self.in_fit and self.training and self.ended is not None
        if self.measuring: self.seconds.append(defaultdict(float))
        self._end("data")

    def after_pred(self): self._end("decode")
    def before_backward(self): self._end("loss")
    def before_step(self): self._end("backward")

    def after_step(self):
        self._end("optimizer")
        # if the next step is to be measured, its batch is waited for from here
        self.ended = self._now() if self.train_iter % self.every == 0 else None

    def _end(self, part):
        if not self.measuring: return
        now = self._now()
        self.seconds[-1][part] += now - self.ended
        self.ended = now

    def _now(self):
        if self.xb[0].is_cuda: torch.cuda.synchronize()
        return time.perf_counter()
