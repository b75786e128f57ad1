"Where the time of a training step goes"
import json
import time
from pathlib import Path
from statistics import median

import torch
from fastai.callback.core import Callback

from ...core.files import replacing

PARTS = "data", "targets", "encode", "refine", "decode", "loss", "backward", "optimizer"


class StepParts(Callback):
    """Median seconds of each of `PARTS`, over every `every`-th training step, written to `path` as JSON after `fit`.

    `targets` is what callbacks prepare before the forward pass, such as the latent of the whole image; `decode` and `backward`
    include a discriminator's. A GPU is waited for at each part's end, in the measured steps only.
    """
    order = -20  # before whatever else a batch brings

    def __init__(self, path, every=10):
        self.path, self.every, self.seconds, self.hooks, self.measuring = Path(path), every, [], [], False

    def before_fit(self):
        self._remove_hooks()  # an interrupted fit did not get to after_fit
        self.hooks = [self.model.register_forward_pre_hook(lambda *_: self._end("targets")),
                      self.model.refiner.register_forward_pre_hook(lambda *_: self._end("encode")),
                      self.model.refiner.register_forward_hook(lambda *_: self._end("refine"))]

    def before_train(self): self.ended = None  # a validation is no loading of data

    def before_batch(self):
        self.measuring = self.training and self.ended is not None
        if self.measuring:
            self.seconds.append({})
            self._end("data")

    def after_pred(self): self._end("decode")
    def before_backward(self): self._end("loss")
    def before_step(self): self._end("backward")

    def after_step(self):
        self._end("optimizer")
        # if the next step is to be measured, its batch is waited for from here
        self.ended = self._now() if self.train_iter % self.every == 0 else None

    def after_fit(self):
        self._remove_hooks()
        if self.seconds:
            found = {part: median(s.get(part, 0.) for s in self.seconds) for part in PARTS}
            with replacing(self.path) as f: f.write(json.dumps(found, indent=1).encode())

    def _remove_hooks(self):
        for hook in self.hooks: hook.remove()
        self.hooks = []

    def _end(self, part):
        if not self.measuring: return
        now = self._now()
        self.seconds[-1][part] = self.seconds[-1].get(part, 0.) + now - self.ended
        self.ended = now

    def _now(self):
        if self.xb[0].is_cuda: torch.cuda.synchronize()
        return time.perf_counter()
