"What training steps report: callbacks write it, tables and trackers read it"


class Scalars:
    "Named scalars: `last`, those of the last step, and their means since `reset`"
    def __init__(self): self.reset()

    def reset(self): self.last, self._sums, self._counts = {}, {}, {}

    def write(self, values):
        "Take in `values` of one step, name → detached scalar"
        self.last = self.last | values
        for k, v in values.items():
            self._sums[k], self._counts[k] = self._sums.get(k, 0) + v, self._counts.get(k, 0) + 1

    def means(self): return {k: float(v/self._counts[k]) for k, v in self._sums.items()}


class StepLog:
    "The unweighted loss `terms` of training steps, and their `health`: all else that is worth watching"
    def __init__(self): self.terms, self.health = Scalars(), Scalars()

    def reset(self): self.terms.reset(), self.health.reset()
