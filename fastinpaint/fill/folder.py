"Filling a folder of photographs, in turn or by worker processes, any of which may be killed"
import os
import signal
import sys
import warnings
from collections import Counter, namedtuple
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import forkserver, get_context
from multiprocessing.connection import wait
from pathlib import Path

import torch
from PIL import Image

from ..core.errors import InputError
from ..data.masks import MaskFolder
from ..data.photos import UNREADABLE, find_images
from .inpainter import Inpainter

Job = namedtuple("Job", "photo mask out")  # paths
FAILURES = InputError, OSError, MemoryError, RuntimeError  # torch out of memory is a RuntimeError


@dataclass
class FolderResult:
    "How many photographs of a folder were filled, and why others were not"
    filled: int = 0
    kept: int = 0  # filled before
    failed: dict[str, str] = field(default_factory=dict)  # path → reason

    def __str__(self):
        head = f"filled {self.filled}, kept {self.kept}, failed {len(self.failed)}{':'*bool(self.failed)}"
        return "\n  ".join([head, *(f"{photo}: {reason}" for photo, reason in self.failed.items())])


def fill_folder(
    images,           # Folder of photographs, searched at any depth
    masks,            # Folder of masks: same path within the folder, or same file stem, any format
    out,              # Folder of results, at the paths that the photographs have in theirs
    model="sample",   # As for `Inpainter`
    workers=1,        # Processes of one thread and a model each; 1: only this one, all threads
    format=None,      # Of the results: png, tif, webp or jpg; None chooses a lossless one
    overwrite=False,  # Fill again what has been filled
    progress=None,    # Wraps the iterable of (path, reason or None) and takes `total`, as tqdm does
    device="auto", precision="fp32",  # As for `Inpainter`
    **options         # For `Inpainter.fill_file`: invert, dilate, feather, refine, strategy, texture
):
    """Fill every photograph under `images` and return a `FolderResult`.

    Results are written whole or not at all, and kept by the next run. Photographs that cannot be filled
    stop no others. Several workers need the main thread. Raises what `Inpainter` does."""
    if workers < 1: raise InputError(f"workers={workers}: expected 1 or more")
    if Path(out).resolve() in (Path(images).resolve(), Path(masks).resolve()):
        raise InputError(f"{out} holds the originals: give the results a folder of their own")
    jobs, result = _jobs(images, masks, out, format), FolderResult()
    result.failed = {o.photo: f"no mask of the same name in {masks}" for o in jobs if not o.mask}
    todo = [o for o in jobs if o.mask and (overwrite or not o.out.exists())]
    result.kept = len(jobs) - len(result.failed) - len(todo)
    if not todo: return result
    load = partial(Inpainter, model, device, precision)
    run = _in_processes(todo, load, options, workers) if workers > 1 else _in_turn(todo, load, options)
    with closing(run):
        for photo, reason in progress(run, total=len(todo)) if progress else run:
            if reason is None: result.filled += 1
            else: result.failed[photo] = reason
    return result


def _jobs(images, masks, out, format):
    "The `Job` of every photograph. Raises InputError if none has a mask."
    found, jobs = MaskFolder(masks), []
    names = [os.path.relpath(o, images) for o in find_images(images, exclude=(masks, out))]
    stems = Counter(os.path.splitext(o)[0] for o in names)
    for name in names:
        photo, stem = os.path.join(images, name), os.path.splitext(name)[0]
        if stems[stem] > 1: stem = name  # a.jpg and a.png become a.jpg.png and a.png.png
        suffix = f".{format}" if format else lossless_suffix(photo)
        jobs.append(Job(photo, found.mask_of(name), Path(out)/(stem + suffix)))
    if any(o.mask for o in jobs): return jobs
    first = Path(names[0])
    raise InputError(f"none of the {len(jobs)} photographs in {images} has a mask of the same name "
                     f"in {masks}: {first.name} needs one called {first.stem}.png, of any format")


def lossless_suffix(photo):
    "Of the result for `photo`: .tif for TIFF, and for CMYK, which PNG cannot hold; else .png"
    try:
        with Image.open(photo) as im: return ".tif" if im.format == "TIFF" or im.mode == "CMYK" else ".png"
    except UNREADABLE: return ".png"  # filling it will give the reason


def _in_turn(jobs, load, options):
    "Yields (photograph, why it was not filled or None) for each `Job`; `load()` is an `Inpainter`"
    inpainter = load()
    for job in jobs: yield job.photo, _failure(inpainter, job, options)


def _failure(inpainter, job, options):
    "Fill one photograph; why it could not be filled, or None. Warnings name the photograph."
    with warnings.catch_warnings():
        warnings.filterwarnings("always", module=r"fastinpaint\.")
        warnings.showwarning = lambda message, *_: print(f"{job.photo}: {message}", file=sys.stderr)
        try: inpainter.fill_file(*job, **options)
        except FAILURES as e:
            return " ".join(str(e).split()).removeprefix(f"{job.photo} ") or type(e).__name__


def _in_processes(jobs, load, options, workers):
    "As `_in_turn`, as they finish. A worker that is killed has failed in its job, and is replaced."
    context, left, current, processes = _fork_server(), iter(jobs), {}, {}

    def start_worker():
        ours, theirs = context.Pipe()
        with theirs:
            process = context.Process(target=_work, args=(theirs, load, options), daemon=True)
            process.start()
        processes[ours], current[ours] = process, None  # no job before its model is loaded

    try:
        for _ in jobs[:workers]: start_worker()
        while current:
            for link in wait(list(current)):
                job = current.pop(link)
                try: answer = link.recv()
                except (EOFError, ConnectionResetError):
                    processes[link].join()
                    if processes[link].exitcode == 1:  # a bug
                        raise RuntimeError("a worker raised the error above") from None
                    answer = "its worker was killed: is there memory for so many?"
                    if job: start_worker()
                    elif not current:  # no other has the model
                        raise InputError("a worker was killed while it loaded the model: try fewer") from None
                else:
                    if isinstance(answer, Exception): raise answer
                    if following := next(left, None):
                        current[link] = following
                        with suppress(BrokenPipeError): link.send(following)  # recv notices
                if job: yield job.photo, answer
    finally:
        for process in processes.values(): process.terminate()
        for process in processes.values(): process.join()


def _work(link, load, options):
    "A worker: sends None or an exception when its model is loaded, then the `_failure` of each job"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes a half-written file
    sys.stdout = sys.stderr
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):  # the parent is gone
        try: inpainter = load()
        except FAILURES as e: return link.send(e)
        link.send(None)
        while True: link.send(_failure(inpainter, link.recv(), options))


def _fork_server():
    "The context of a server that forks workers with all imports done, and ignores Ctrl-C"
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try: forkserver.ensure_running()
    finally: signal.signal(signal.SIGINT, before)
    return context
