"What becomes of photographs that are filled one after the other, and a report of it"
import sys
import time
import warnings
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path

from ..core.errors import InputError
from ..core.files import replacing
from .inpainter import GPU_AT_ONCE, opened
from .jobs import PYARROW, check_table, read_table
from .work import Options

FAILURES = InputError, OSError, MemoryError, RuntimeError  # torch out of memory is a RuntimeError


@dataclass(slots=True)
class Outcome:
    "A photograph that was filled, or kept since it had been, or failed"
    image: str
    out: str
    status: str = "filled"  # or kept, failed
    seconds: float | None = field(default=0., compare=False)  # of reading, filling, writing; None: unknown
    strategy: str = ""  # of `STRATEGIES`; "" without a hole
    error: str = ""  # why it failed

    def failed(self, error):
        self.status, self.error = "failed", error
        return self


COLUMNS = [f.name for f in fields(Outcome)]


def at_once(inpainter):
    "Photographs that `filled` is best given: on a CPU batches win little and lose the bits of a single fill"
    return GPU_AT_ONCE if inpainter.device.type == "cuda" else 1


def filled(inpainter, jobs, options):
    "The `Outcome` of each of `jobs`; those of one size pass through the network together"
    options, works = Options(**options), defaultdict(list)
    outcomes = [Outcome(job.image, job.out) for job in jobs]
    for job, outcome in zip(jobs, outcomes, strict=True):
        with _trying(outcome):
            work = opened(job.image, job.mask or None, options, Path(job.out).suffix.lower())
            works[work.size].append((work, outcome))
    for pairs in works.values():
        with _trying(*(outcome for _, outcome in pairs)): inpainter.predict([work for work, _ in pairs])
        for work, outcome in pairs:
            outcome.strategy = work.strategy
            if outcome.error: continue
            with _trying(outcome): inpainter.finished(work)[0].save(outcome.out, options.quality)
    return outcomes


@contextmanager
def _trying(*outcomes):
    "Notes a failure in `outcomes`, and their seconds in equal shares; warnings name the photograph"
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", module=r"fastinpaint\.")
        warnings.showwarning = lambda message, *_: print(f"{outcomes[0].image}: {message}", file=sys.stderr)
        try: yield
        except FAILURES as e:
            why = " ".join(str(e).split())
            for o in outcomes: o.failed(why.removeprefix(f"{o.image} ") or type(e).__name__)
        finally:
            for o in outcomes: o.seconds += (time.perf_counter() - start)/len(outcomes)


def write_report(path, outcomes):
    """Write a row for each of `outcomes` to a CSV or Parquet file, whole or not at all; returns its path.

    Without pyarrow Parquet becomes CSV, which a warning says."""
    import pandas as pd  # slow to import, and not needed without a report
    columns = {name: [getattr(o, name) for o in outcomes] for name in COLUMNS}
    if path.suffix.lower() != ".csv" and not find_spec("pyarrow"):
        warnings.warn(f"the report is CSV: {PYARROW}", stacklevel=2)
        path = path.with_suffix(".csv")
    with replacing(path) as f:
        table = pd.DataFrame(columns).astype(dict(seconds=float))
        if path.suffix.lower() == ".csv": table.to_csv(f, index=False)
        else: table.to_parquet(f, index=False)
    return path


def read_report(path):
    "Result → (seconds, strategy) of the report `path`, if there is one. Raises what `read_table` raises"
    check_table(path)
    if not path.exists(): return {}
    rows = read_table(path, COLUMNS)
    return {out: (float(seconds) if seconds else None, strategy)
            for out, seconds, strategy in zip(rows["out"], rows["seconds"], rows["strategy"], strict=True)}
