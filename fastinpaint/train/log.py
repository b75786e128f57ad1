"What a Learner prints where nobody watches: a line an epoch, for a log"
import sys
from contextlib import contextmanager, nullcontext

from fastai.callback.progress import ProgressCallback
from fastprogress.fastprogress import IN_NOTEBOOK

LEAST = 8  # characters of a column


def watched(): return IN_NOTEBOOK or sys.stdout.isatty()


def without_bars(learn):
    "A context in which `learn` draws no progress bars, if nobody watches them"
    return nullcontext() if watched() else learn.removed_cbs(learn._grab_cbs(ProgressCallback))


@contextmanager
def lines(learn):
    "A context of a fit: if nobody watches, `learn` prints its columns once and a line for each epoch"
    if watched() or not learn._grab_cbs(ProgressCallback):  # somebody has done without it
        yield
        return
    logger = learn.logger
    if logger is print: learn.logger = Lines(learn)
    try:
        with without_bars(learn): yield
    finally: learn.logger = logger


class Lines:
    "Prints an epoch's `values`, and before the first their names"
    def __init__(self, learn): self.learn, self.widths = learn, None

    def __call__(self, values):
        names = list(self.learn.recorder.metric_names)
        if self.widths is None:
            self.widths = [max(len(name), LEAST) for name in names]
            self._print(names)
        self._print([f"{v:.6f}" if isinstance(v, float) else str(v) for v in values])

    def _print(self, texts):
        print("  ".join(t.ljust(n) for t, n in zip(texts, self.widths, strict=True)).rstrip(), flush=True)
