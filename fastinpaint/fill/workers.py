"Photographs filled one after another, or by worker processes, any of which may be killed"
import signal
import sys
import warnings
from collections import namedtuple
from contextlib import suppress
from multiprocessing import forkserver, get_context
from multiprocessing.connection import wait

import torch

from ..core.errors import InputError
from .inpainter import Inpainter

Job = namedtuple("Job", "photo mask out")  # paths

FAILURES = InputError, OSError, MemoryError, RuntimeError  # torch out of memory is a RuntimeError


def fill_in_turn(jobs, load, options):
    """Yields (photograph, why it could not be filled or None) for each `Job` of `jobs`.

    `load` are the arguments of `Inpainter`, `options` those of its `fill_file`.
    """
    inpainter = Inpainter(**load)
    for job in jobs: yield job.photo, _failure(inpainter, job, options)


def fill_in_processes(jobs, load, options, workers):
    """As `fill_in_turn`, in the order in which they finish.

    When a worker is killed, its photograph has failed and another worker replaces it.
    """
    context, left, current, processes = _fork_server(), iter(jobs), {}, {}

    def start_worker():
        ours, theirs = context.Pipe()
        with theirs:
            process = context.Process(target=_work, args=(theirs, load, options), daemon=True)
            process.start()
        processes[ours], current[ours] = process, None  # no job before its model is loaded

    try:
        for _ in range(workers): start_worker()
        while current:
            for link in wait(list(current)):
                job = current.pop(link)
                try: answer = link.recv()
                except (EOFError, ConnectionResetError):
                    answer = _end_of(processes[link], job)
                    if job: start_worker()
                    elif not current: raise InputError(answer) from None  # no other has the model
                else:
                    if isinstance(answer, Exception): raise answer
                    if following := next(left, None):
                        current[link] = following
                        with suppress(BrokenPipeError): link.send(following)  # recv notices
                if job: yield job.photo, answer
    finally:
        for process in processes.values(): process.terminate()
        for process in processes.values(): process.join()


def _end_of(process, job):
    "Why `job` has failed with its worker. Raises RuntimeError if that met a bug."
    process.join()
    if process.exitcode == 1: raise RuntimeError("a worker raised the error above")
    if job: return "the process that filled it was killed: is there memory for so many workers?"
    return "a worker was killed while it loaded the model: try fewer"


def _failure(inpainter, job, options):
    "Fill one photograph; why it could not be filled, or None. Warnings name the photograph."
    with warnings.catch_warnings():
        warnings.filterwarnings("always", module=r"fastinpaint\.")
        warnings.showwarning = lambda message, *_: print(f"{job.photo}: {message}", file=sys.stderr)
        try: inpainter.fill_file(*job, **options)
        except FAILURES as e:
            return " ".join(str(e).split()).removeprefix(f"{job.photo} ") or type(e).__name__


def _work(link, load, options):
    "A worker: sends None or an exception when its model is loaded, then the `_failure` of each job"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes a half-written file
    sys.stdout = sys.stderr
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):  # the parent is gone
        try: inpainter = Inpainter(**load)
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
