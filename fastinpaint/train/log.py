"What training steps report: callbacks write it, tables and trackers read it"


class Scalars:
    "Named scalars: `last`, those of the last step, and their means since `reset`"
    def __init__(self): self.reset()

    def reset(self): self.last, self._sums, self._counts = {}, {}, {}

    def write(self, values):
        "Take in `values`, name → detached scalar tensor or number, of one step"
        self.last = self.last | values
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def mean(self, name):
        "Mean of `name`; None where no step has reported it"
        return float(self._sums[name])/self._counts[name] if name in self._sums else None

    def means(self): return {name: self.mean(name) for name in self._sums}


class StepLog:
    """The unweighted loss `terms` of training steps, and their `health`: whatever else is worth
    watching
    """
    def __init__(self): self.terms, self.health = Scalars(), Scalars()

    def reset(self):
        self.terms.reset()
        self.health.reset()
