"Filling a folder of photographs: one after another or in several processes, going on where it stopped"
import os
import signal
import sys
import warnings
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, get_context
from multiprocessing.connection import wait
from pathlib import Path

import torch
from PIL import Image

from ..data.masks import MaskFolder
from ..data.photos import UNREADABLE, find_images
from .inpainter import Inpainter

__all__ = ["Filled", "fill_folder", "lossless_suffix"]

FAILURES = ValueError, OSError, MemoryError, RuntimeError  # of one photograph; where memory ends, torch raises RuntimeError


@dataclass
class Filled:
    "What became of the photographs of a folder"
    filled: int = 0
    kept: int = 0  # they had been filled before
    failed: dict[str, str] = field(default_factory=dict)  # path → reason

    def __str__(self):
        head = f"filled {self.filled}, kept {self.kept}, failed {len(self.failed)}"
        return "\n  ".join([head + ":"*bool(self.failed), *(f"{fn}: {why}" for fn, why in self.failed.items())])


def fill_folder(
    images,           # Folder of photographs, searched at any depth
    masks,            # Folder of masks: same path within the folder, or same file stem, any format
    out,              # Folder of results, at the paths that the photographs have in theirs
    model="sample",   # As for `Inpainter`
    workers=1,        # Processes, each with one thread and a model of its own; 1: none besides this one, with all threads
    format=None,      # Of the results, as a file's ending: png, tif, webp, jpg; None chooses a lossless one
    overwrite=False,  # Fill again what has been filled
    progress=None,    # Wraps the iterable of (path, reason or None) and takes `total`, as tqdm does
    device="auto",    # As for `Inpainter`
    precision="fp32", # As for `Inpainter`
    **options         # For `Inpainter.fill_file`: invert, dilate, feather, refine, strategy
):
    """Fill every photograph under `images` and return what became of them, a `Filled`.

    A result is written whole or not at all, so one that exists is finished: it is kept, and a run that was stopped goes on where
    it stopped. A photograph that cannot be filled does not stop the others. Only the main thread can have several workers.
    Raises ValueError, FileNotFoundError where a folder does not fit, and what `Inpainter` raises.
    """
    if workers < 1: raise ValueError(f"workers={workers}: expected 1 or more")
    if Path(out).resolve() in (Path(images).resolve(), Path(masks).resolve()):
        raise ValueError(f"the results would go among the originals in {out}: give them a folder of their own")
    result, jobs = Filled(), []
    for job in _jobs(images, masks, out, format):
        if job[1] is None: result.failed[job[0]] = f"no mask of the same name in {masks}"
        elif job[2].exists() and not overwrite: result.kept += 1
        else: jobs.append(job)
    if not jobs: return result
    load = dict(model=model, device=device, precision=precision)
    run = _in_turn(jobs, load, options) if workers == 1 else _in_processes(jobs, load, options, min(workers, len(jobs)))
    with closing(run):
        for fn, reason in progress(run, total=len(jobs)) if progress else run:
            if reason is None: result.filled += 1
            else: result.failed[fn] = reason
    return result


def _jobs(images, masks, out, format):
    "(photograph, its mask or None, where its result goes) of every photograph"
    found = MaskFolder(masks)
    names = [os.path.relpath(o, images) for o in find_images(images, exclude=(masks, out))]
    stems = Counter(os.path.splitext(o)[0] for o in names)
    jobs = []
    for name in names:
        fn, stem = os.path.join(images, name), os.path.splitext(name)[0]
        if stems[stem] > 1: stem = name  # of a.jpg beside a.png, the results are a.jpg.png and a.png.png
        jobs.append((fn, found.mask_of(name), Path(out)/(stem + (f".{format}" if format else lossless_suffix(fn)))))
    if not any(mask for _, mask, _ in jobs):
        raise ValueError(f"none of the {len(jobs)} photographs in {images} has a mask of the same name in {masks}: "
                         f"{os.path.basename(jobs[0][0])} needs one called {Path(jobs[0][0]).stem}.png, of any format")
    return jobs


def lossless_suffix(fn):
    "Of the result for the photograph `fn`: .tif for a TIFF and for CMYK, which PNG cannot hold, else .png"
    try:
        with Image.open(fn) as im: return ".tif" if im.format == "TIFF" or im.mode == "CMYK" else ".png"
    except UNREADABLE: return ".png"  # whoever reads it says why it cannot be read


def _failure(inpainter, job, options):
    "Fill one photograph; why it could not be, or None. What we warn of names the photograph, and is said of each."
    with warnings.catch_warnings():
        warnings.filterwarnings("always", module=r"fastinpaint\.")
        warnings.showwarning = lambda message, *_: print(f"{job[0]}: {message}", file=sys.stderr)
        try: inpainter.fill_file(*job, **options)
        except FAILURES as e: return " ".join(str(e).split()).removeprefix(f"{job[0]} ") or type(e).__name__


def _in_turn(jobs, load, options):
    "Yields (photograph, why it failed or None)"
    inpainter = Inpainter(**load)
    for job in jobs: yield job[0], _failure(inpainter, job, options)


def _work(link, load, options):
    "One process: says None when its model is loaded, or what was raised; then why each job that it is sent failed, or None"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of Ctrl-C, too, and ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # raises, so that a half-written file is removed
    sys.stdout = sys.stderr
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):  # the parent is gone
        try: inpainter = Inpainter(**load)
        except (ImportError, *FAILURES) as e: return link.send(e)
        link.send(None)
        while True: link.send(_failure(inpainter, link.recv(), options))


def _workplace():
    "Where processes come from: a server that has imported what they need, and is deaf to Ctrl-C, which the parent answers"
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try: forkserver.ensure_running()
    finally: signal.signal(signal.SIGINT, before)
    return context


def _in_processes(jobs, load, options, workers):
    "As `_in_turn`, in whatever order they finish"
    context, left, working, processes = _workplace(), iter(jobs), {}, []

    def hire():
        ours, theirs = context.Pipe()
        with theirs:
            process = context.Process(target=_work, args=(theirs, load, options), daemon=True)
            process.start()
        processes.append(process)
        working[ours] = None  # no job before its model is loaded

    try:
        for _ in range(workers): hire()
        while working:
            for link in wait(list(working)):
                job = working.pop(link)
                try: answer = link.recv()
                except (EOFError, ConnectionResetError):
                    if job is None and working: continue  # those that could load the model do the work
                    if job is None: raise OSError("a worker was killed while it loaded the model: try fewer") from None
                    answer = "the process that filled it was killed: is there memory for so many workers?"
                    hire()
                else:
                    if isinstance(answer, Exception): raise answer
                    if following := next(left, None):
                        working[link] = following
                        with suppress(BrokenPipeError): link.send(following)  # its end is heard of above
                if job: yield job[0], answer
    finally:
        for process in processes: process.terminate()
        for process in processes: process.join()
