"""Ray: photographs filled by actors, and runs as tasks, on this machine or a cluster.

Workers go where the driver is: its folder, where they have it, and its FASTINPAINT_ settings; so relative
paths hold on all machines that share it."""
import logging
import math
import os
from contextlib import closing, contextmanager, suppress
from functools import partial

from ..core.errors import InputError, MissingPackage
from ..fill.jobs import Job
from ..fill.outcomes import FAILURES, Outcome, filled
from ..fill.processes import KILLED

try:
    import ray
    import ray.data
    from ray.exceptions import (
        NodeDiedError,
        OutOfMemoryError,
        RayActorError,
        RayTaskError,
        WorkerCrashedError,
    )
except ImportError as e:
    raise MissingPackage("--engine ray needs Ray: pip install 'fastinpaint[ray]'") from e

BATCH = 16   # photographs that an actor is given at a time, at most: what a killed one does again
BATCHES = 4  # for each actor, at least, so that none is idle for long at the end
TRIES = 2    # of a batch, before each of its photographs gets a process of its own
NOBODY = -1  # the number of no job
SAID = "status", "seconds", "strategy", "error"  # of an `Outcome`, beside its paths
LOST = RayActorError, WorkerCrashedError, NodeDiedError, OutOfMemoryError


def filling(workers=None, address=None, device="auto"):
    "The engine of `fill_all` by `workers` actors, as many as the cluster has GPUs, or else CPUs"
    return partial(fill_by_actors, workers=workers, address=address, device=device)


def fill_by_actors(jobs, load, options, workers=None, address=None, device="auto"):
    """Yields the `Outcome` of each of `jobs` as they are filled on the Ray cluster at `address`.

    A batch whose actor is killed is done again by its successor. What is still without an outcome then gets
    a process of its own, and has failed if that is killed, too. Raises InputError where the model cannot be
    loaded, and as `connected`."""
    with connected(address):
        left, found = dict(enumerate(jobs)), resources(device)
        workers = workers or found["count"]
        with closing(_answers(left, Filler, (_place(), load, options), workers, found["each"])) as answers:
            for row in answers:
                number, stopped = row.pop("number"), row.pop("stopped")
                if stopped: raise InputError(row["error"])
                if job := left.pop(number, None): yield Outcome(job.image, job.out, **row)
        for job in left.values():
            task = _alone.options(**found["each"]).remote(_place(), load, options, job)
            try: yield _got(task)
            except LOST: yield Outcome(job.image, job.out).failed(KILLED)


def _answers(jobs, actor, args, workers, each):
    "Rows of what `actor`s say of `jobs`, number → `Job`, by Ray Data"
    context = ray.data.DataContext.get_current()
    for name in "enable_progress_bars", "print_on_execution_start": setattr(context, name, False)
    logging.getLogger("ray.data").setLevel("ERROR")
    size = min(math.ceil(len(jobs)/(BATCHES*workers)), BATCH)
    count = math.ceil(len(jobs)/size)
    rows = [dict(number=i, **job._asdict()) for i, job in jobs.items()]
    pool = ray.data.ActorPoolStrategy(size=min(workers, count))
    yield from ray.data.from_items(rows, override_num_blocks=count).map_batches(
        actor, fn_constructor_args=(*args, _tries()), batch_size=size, compute=pool, **each).iter_rows()


class Filler:
    "An actor with an `Inpainter`: batches of numbered jobs become batches of outcomes"
    def __init__(self, place, load, options, tries):
        self.place, self.load, self.options, self.tries = place, load, options, tries

    @property
    def inpainter(self):  # not loaded by __init__, whose errors Ray would hide in a long one of its own
        if self.load:
            self.place()
            self._inpainter, self.load = self.load(), None
        return self._inpainter

    def __call__(self, batch):
        numbers, *columns = (batch[name].tolist() for name in ("number", *Job._fields))
        jobs, stopped = [*map(Job, *columns)], False
        outcomes = [Outcome(job.image, job.out) for job in jobs]
        # Ray would give a batch that kills its actors to them for ever
        if ray.get(self.tries.begin.remote(numbers[0])) > TRIES: numbers = [NOBODY]*len(jobs)
        else:
            try: outcomes = filled(self.inpainter, jobs, self.options)
            except FAILURES as e:  # of the model: those of photographs are in their outcomes
                stopped = bool([o.failed(str(e)) for o in outcomes])
        said = {name: [getattr(o, name) for o in outcomes] for name in SAID}
        return dict(number=numbers, stopped=[stopped]*len(jobs), **said)


def _tries():
    "An actor that counts how often each batch has been begun"
    class Tries:  # sent whole, so that its process need not import torch
        def __init__(self): self.counts = {}

        def begin(self, number):
            self.counts[number] = self.counts.get(number, 0) + 1
            return self.counts[number]
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tries).remote()


def spread(function, *each, address=None, device="auto"):
    """As `map`, a list: each call is a task. What fails is raised when all others are done.

    A task whose worker is killed is started again, and so should go on where it was."""
    with connected(address):
        run, place = _task.options(**resources(device)["each"]), _place()
        tasks = [run.remote(place, function, args) for args in zip(*each, strict=True)]
        values, errors = [], []
        for task in tasks:
            try: values.append(_got(task))
            except (InputError, RayTaskError) as e: errors.append(e)
            except LOST as e: errors.append(InputError(f"a task has lost its worker again and again: {e}"))
        if errors: raise errors[0]
        return values


@ray.remote
def _task(place, function, args):
    place()
    return function(*args)


@ray.remote(max_retries=0)
def _alone(place, load, options, job):
    place()
    return filled(load(), [job], options)[0]


def _got(task):
    "The value of `task`; what the user can mend without Ray's words around it"
    try: return ray.get(task)
    except RayTaskError as e:
        if isinstance(e.cause, InputError): raise e.cause from None
        raise


@contextmanager
def connected(address=None):
    """A connection to the Ray cluster at `address`, else RAY_ADDRESS, else to a new one, which ends with it.

    One that is there already stays. Raises InputError where no cluster answers."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a new cluster would report home
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try: ray.init(address, logging_level="warning", include_dashboard=None if address != "local" else False)
    except ConnectionError as e:
        raise InputError(f"no Ray cluster at {address} lets this machine in: {e}. Where it asks for a token, "
                         "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token") from e
    try: yield
    finally: ray.shutdown()


def resources(device):
    "What `each` worker takes of the cluster, a GPU where there are, and the `count` that it has room for"
    found = ray.cluster_resources()
    gpus = int(found.get("GPU", 0)) if device != "cpu" else 0
    if gpus: return dict(count=gpus, each=dict(num_gpus=1))
    return dict(count=max(int(found.get("CPU", 0)), 1), each=dict(num_cpus=1))


def _place():
    "A function that takes a worker to this process' folder and settings"
    return partial(_go, os.getcwd(), {k: v for k, v in os.environ.items() if k.startswith("FASTINPAINT_")})


def _go(folder, settings):
    os.environ.update(settings)
    with suppress(FileNotFoundError): os.chdir(folder)
