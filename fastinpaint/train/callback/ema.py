"A moving average of the weights, which judges better than the last step does"
from contextlib import contextmanager

import torch

from ...core.errors import InputError
from .fit import FitCallback


class EMA(FitCallback):
    """Exponential moving average of the weights, evaluated in place of them, and the model's when a fit ends.

    After every step `average ← decay·average + (1 - decay)·weights`, BatchNorm statistics included,
    where `decay` is at most (1 + steps)/(10 + steps). Raises InputError for a decay outside [0, 1)."""
    order = 70  # after what changes the weights; before Checkpoint (90), which wants the trained
    in_lr_find = False
    def __init__(self, decay=.999):
        if not 0 <= decay < 1: raise InputError(f"decay is in [0, 1), got {decay}")
        self.decay, self.steps, self.average, self.swapped = decay, 0, None, False

    @contextmanager
    def during_fit(self):
        try: yield
        finally:
            self._swap(True)
            self.average, self.steps, self.swapped = None, 0, False

    def before_train(self):
        if self.in_fit and self.average is None: self.average = self._copy()

    @torch.no_grad()
    def after_step(self):
        if not self.in_fit: return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps)/(10 + self.steps))
        for k, v in self._weights(): self.average[k].lerp_(v, 1 - decay)

    def before_validate(self): self._swap(True)
    def after_validate(self): self._swap(False)

    def _swap(self, averaged):
        "Exchange weights and average, unless they are where they should be"
        if self.average is None or averaged == self.swapped: return
        before = self._copy()
        self.model.load_state_dict(self.average, strict=False)
        self.average, self.swapped = before, averaged

    def _weights(self): return ((k, v) for k, v in self.model.state_dict().items() if v.is_floating_point())
    def _copy(self): return {k: v.clone() for k, v in self._weights()}
    def state_dict(self): return {"average": self.average, "steps": self.steps}
    def load_state_dict(self, state): self.average, self.steps = state["average"], state["steps"]
