"Every loss term by name, next to fastai's losses"
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

    `values` holds the unweighted terms of the last batch by name, for trackers.
    """
    order = 40  # before Recorder (50), which takes the names of all metrics as training begins
    values = {}

    def before_fit(self):
        self.after_fit()  # an interrupted fit did not get there
        self.count = 0
        self.learn.metrics = [*self.learn.metrics, *[TermMean(self, t.name) for t in self.loss_func.terms]]

    def before_train(self): self.sums, self.count = {}, 0

    def after_loss(self):
        if not self.training: return
        self.values = {k: v.detach() for k, v in self.loss_func.values.items()}
        self.sums = {k: self.sums.get(k, 0) + v for k, v in self.values.items()}
        self.count += 1

    def before_validate(self):
        if not self.count: self.after_fit()  # in `learn.validate`, which has no training to report

    def after_fit(self): self.learn.metrics = [m for m in self.learn.metrics if not isinstance(m, TermMean)]
