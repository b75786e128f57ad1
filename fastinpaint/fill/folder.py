"Filling many photographs: a folder of them, or the rows of a manifest; started again, it goes on"
import os
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..core.errors import InputError, with_reasons
from .inpainter import Inpainter
from .jobs import folder_jobs, manifest_jobs
from .outcomes import Outcome, read_report, write_report
from .processes import in_processes, in_turn


@dataclass
class FolderResult:
    "How many photographs of a folder were filled, and why others were not"
    filled: int = 0
    kept: int = 0  # filled before
    failed: dict[str, str] = field(default_factory=dict)  # path → reason

    def add(self, outcome):
        if outcome.status == "filled": self.filled += 1
        elif outcome.status == "kept": self.kept += 1
        else:  # in a manifest, one photograph may have several holes
            again = f" to {outcome.out}"*(outcome.image in self.failed)
            self.failed[outcome.image + again] = outcome.error

    def __str__(self):
        head = f"filled {self.filled}, kept {self.kept}, failed {len(self.failed)}"
        return with_reasons(head, self.failed)


def fill_folder(
    images,           # Folder of photographs, searched at any depth; or shards, a folder or an address
    masks,            # The same of masks: same path within the folder, or same file stem, any format; or a
                      # file, the mask of all; None where nothing but `extend` is asked for
    out,              # Folder of results, at the paths that the photographs have in theirs
    model="sample",   # As for `Inpainter`
    workers=1,        # Processes of one thread and a model each; 1: only this one, all threads
    format=None,      # Of the results: png, tif, webp or jpg; None chooses a lossless one
    shard=None,       # Only a share of the photographs, by their names' hash: "2/8" is the second of eight
    **more            # As for `fill_all`
):
    """Fill every photograph under `images` and return a `FolderResult`.

    Results are written whole or not at all, and kept by the next run. Photographs that cannot be filled
    stop no others. Several workers need the main thread. Raises what `Inpainter` does."""
    return fill_all(folder_jobs(images, masks, out, format, shard), model, workers, **more)


def fill_manifest(
    manifest,         # CSV or Parquet file with columns image, mask and out: paths from where it lies
    out=None,         # Folder where relative paths of results start; None: that of the manifest
    model="sample", workers=1, shard=None, **more  # As for `fill_folder`
):
    "As `fill_folder`, for each row of a table; raises what `manifest_jobs` does, too"
    return fill_all(manifest_jobs(manifest, out, shard), model, workers, **more)


def fill_all(
    jobs,             # List of `Job`s
    model="sample", workers=1,  # As for `fill_folder`
    overwrite=False,  # Fill again what has been filled
    report=None,      # CSV or Parquet file with a row for every photograph: an `Outcome`
    engine=None,      # Function (jobs, load, options) → iterator of `Outcome`s; None: this machine
    progress=None,    # Wraps the iterable of `Outcome`s and takes `total`, as tqdm does
    device="auto", precision="fp32",  # As for `Inpainter`
    **options         # For `Inpainter.fill_file`: those of `Options`
):
    """Do `jobs` and return a `FolderResult`.

    The report is written whole at the end, also on Ctrl-C, of all that has been decided by then; what is kept
    has the seconds and the strategy of the report before."""
    if workers < 1: raise InputError(f"workers={workers}: expected 1 or more")
    before = read_report(report := Path(report)) if report else {}
    result, outcomes, todo = FolderResult(), [], []
    for job in jobs:
        outcome = Outcome(job.image, job.out)
        if job.mask is None: outcome.failed("no mask of the same name")
        elif overwrite or not os.path.exists(job.out):
            todo.append(job)
            continue
        else: outcome.status, (outcome.seconds, outcome.strategy) = "kept", before.get(job.out, (None, ""))
        outcomes.append(outcome)
    for outcome in outcomes: result.add(outcome)
    run = engine or (partial(in_processes, workers=workers) if workers > 1 else in_turn)
    try:
        if todo:
            with closing(run(todo, partial(Inpainter, model, device, precision), options)) as done:
                for outcome in progress(done, total=len(todo)) if progress else done:
                    result.add(outcome)
                    outcomes.append(outcome)
    finally:
        if report: _write(report, outcomes, result)
    return result


def _write(report, outcomes, result):
    try: write_report(report, outcomes)
    except OSError as e:
        why = f"{e.strerror or e}; the report was not written, the results were: {result}"
        raise OSError(e.errno, why, str(report)) from e
