"Every loss term by name, next to fastai's losses"
from contextlib import contextmanager

from fastai.learner import ValueMetric

from .fit import FitCallback


class LossTerms(FitCallback):
    """Writes loss terms and their shares to the `StepLog`; shows means as `train_<term>`.

    Raises Diverged at the first training batch where a term is not finite, before any step."""
    order = 40  # before Recorder (50), which takes the names of all metrics as training begins

    @contextmanager
    def during_fit(self):
        def mean_of(term): return ValueMetric(lambda: self.step_log.terms.means().get(term), f"train_{term}")
        metrics = self.learn.metrics
        self.learn.metrics = [*metrics, *(mean_of(t.name) for t in self.objective.terms)]
        try: yield
        finally: self.learn.metrics = metrics

    def before_train(self): self.step_log.reset()

    def after_loss(self):
        if not self.training: return
        values = {k: v.detach() for k, v in self.objective.values.items()}
        if not self.learn.loss.isfinite():
            wrong = [f"{k} is {v.item()}" for k, v in values.items() if not v.isfinite()]
            self.stop(", ".join(wrong) or "the loss is not finite")
        self.step_log.terms.write(values)
        if len(values) > 1:
            weighted = {f"share_{t.name}": t.weight*values[t.name] for t in self.objective.terms}
            total = sum(weighted.values())
            self.step_log.health.write({k: v/total for k, v in weighted.items()})
