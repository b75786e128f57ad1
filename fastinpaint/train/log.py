"What training steps report: callbacks write it, tables and trackers read it"
from collections import Counter, defaultdict


class Scalars:
    "Named scalars: `last`, those of the last step, and their means since `reset`"
    def __init__(self): self.reset()

    def reset(self): self.last, self._sums, self._counts = {}, defaultdict(float), Counter()

    def write(self, values):
        "Take in `values` of one step, name → detached scalar"
        self.last |= values
        self._counts.update(values.keys())
        for k, v in values.items(): self._sums[k] = self._sums[k] + v

    def means(self): return {k: float(v)/self._counts[k] for k, v in self._sums.items()}


class StepLog:
    "The unweighted loss `terms` of training steps, and their `health`: all else that is worth watching"
    def __init__(self): self.terms, self.health = Scalars(), Scalars()

    def reset(self): self.terms.reset(), self.health.reset()
