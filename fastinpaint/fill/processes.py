"Filling on this machine, in turn or by worker processes, any of which may be killed"
import signal
import sys
from contextlib import suppress
from multiprocessing import forkserver, get_context
from multiprocessing.connection import wait

import torch

from ..core.errors import InputError
from .outcomes import FAILURES, Outcome, at_once, filled
from .work import batched

KILLED = "its worker was killed: is there memory for so many?"


def in_turn(jobs, load, options):
    "Yields the `Outcome` of each `Job`; `load()` is an `Inpainter`"
    inpainter = load()
    for some in batched(jobs, at_once(inpainter)): yield from filled(inpainter, some, options)


def in_processes(jobs, load, options, workers):
    "As `in_turn`, as they finish. A worker that is killed has failed in its job, and is replaced."
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
                    if job:
                        answer = Outcome(job.image, job.out).failed(KILLED)
                        start_worker()
                    elif not current:  # no other has the model
                        raise InputError("a worker was killed while it loaded the model: try fewer") from None
                else:
                    if isinstance(answer, Exception): raise answer
                    if following := next(left, None):
                        current[link] = following
                        with suppress(BrokenPipeError): link.send(following)  # recv notices
                if job: yield answer
    finally:
        for process in processes.values(): process.terminate()
        for process in processes.values(): process.join()


def _work(link, load, options):
    "A worker: sends None or an exception when its model is loaded, then the `Outcome` of each job"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes a half-written file
    sys.stdout = sys.stderr
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):  # the parent is gone
        try: inpainter = load()
        except FAILURES as e: return link.send(e)
        link.send(None)
        while True: link.send(*filled(inpainter, [link.recv()], options))


def _fork_server():
    "The context of a server that forks workers with all imports done, and ignores Ctrl-C"
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try: forkserver.ensure_running()
    finally: signal.signal(signal.SIGINT, before)
    return context
