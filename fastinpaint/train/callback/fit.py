"The base of callbacks that change something for the time of a fit"
from contextlib import nullcontext

from fastai.callback.core import Callback

from ...core.errors import Diverged


class FitCallback(Callback):
    """A callback of an `InpaintLearner` with a context around every fit.

    `during_fit` is entered right before the callback's `before_fit` and left however training ends.
    Validation and prediction outside of a fit do not enter it."""
    in_lr_find = True  # whether it takes part in `lr_find`, whose training is undone afterwards
    def __call__(self, event):
        if event == "before_fit": self.learn.enter(self)
        return super().__call__(event)

    @property
    def in_fit(self): return self in self.learn.fit_callbacks

    def during_fit(self): return nullcontext()

    def change_terms(self, terms):
        "The loss terms of this fit, given those of the Learner and of callbacks of lower order"
        return terms

    def after_trained_epoch(self): "Follows every callback's `after_epoch`, after epochs of training alone"

    def stop(self, why):
        "Raises Diverged, naming the batch"
        raise Diverged(f"training stopped in epoch {self.epoch}, batch {self.iter}: {why}")
