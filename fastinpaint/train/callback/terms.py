"Every loss term by name, next to fastai's losses"
import math

from fastai.callback.core import Callback
from fastai.learner import Metric


class TermMean(Metric):
    "Mean of one loss term over the training batches of the epoch"
    def __init__(self, terms, term): self.terms, self.term = terms, term

    @property
    def name(self): return f"train_{self.term}"

    @property
    def value(self): return (self.terms.sums[self.term]/self.terms.count).item() if self.terms.count else None


class LossTerms(Callback):
    """Logs the training mean of each loss term as `train_<term>` beside the losses of each epoch.

    `values` holds the unweighted terms of the last batch by name, for trackers; `health` what callbacks with a dict of that name
    say of themselves, and each term's share in the loss. Raises FloatingPointError at the first batch where a term is NaN or
    infinite, before the optimizer steps.
    """
    order = 40  # before Recorder (50), which takes the names of all metrics as training begins
    values, health = {}, {}

    def before_fit(self):
        self.after_fit()  # an interrupted fit did not get there
        self.count = 0
        self.learn.metrics = [*self.learn.metrics, *[TermMean(self, t.name) for t in self.loss_func.terms]]

    def before_train(self): self.sums, self.health_sums, self.count = {}, {}, 0

    def after_loss(self):
        if not self.training: return
        self.values = {k: v.detach() for k, v in self.loss_func.values.items()}
        if not self.learn.loss.isfinite(): self._stop()
        self.sums = _added(self.sums, self.values)
        self.count += 1

    def _stop(self):
        wrong = [f"{k} is {v.item()}" for k, v in self.values.items() if not math.isfinite(v.item())]
        raise FloatingPointError(f"training stopped in epoch {self.epoch}, batch {self.iter}: "
                                 f"{', '.join(wrong) or 'the loss is not finite'}")

    def after_batch(self):
        if not self.training or not self.values: return
        weighted = {t.name: t.weight*self.values[t.name] for t in self.loss_func.terms if t.name in self.values}
        total = sum(weighted.values())
        self.health = {f"share_{k}": v/total for k, v in weighted.items()} if len(weighted) > 1 else {}
        for cb in self.learn.cbs:
            if cb is not self: self.health |= vars(cb).get("health", {})
        self.health_sums = _added(self.health_sums, self.health)

    def health_means(self): return {k: float(v)/self.count for k, v in self.health_sums.items()} if self.count else {}

    def before_validate(self):
        if not self.count: self.after_fit()  # in `learn.validate`, which has no training to report

    def after_fit(self): self.learn.metrics = [m for m in self.learn.metrics if not isinstance(m, TermMean)]


def _added(sums, values): return {k: sums.get(k, 0) + v for k, v in values.items()}
