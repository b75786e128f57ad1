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
    from ray.exceptions import RayError, RaySystemError, RayTaskError
except ImportError as e:
    raise MissingPackage("--engine ray needs Ray: pip install 'fastinpaint[ray]'") from e

BATCH = 16    # photographs that an actor is given at a time, at most: what a killed one does again
BATCHES = 4   # for each actor, at least, so that none is idle for long at the end
RETRIES = 1   # of a batch whose actor is killed
ERRORS = 100  # batches that are killed again and again, or a bug's, after which a run ends
LOST = RayError, RaySystemError
SAID = "status", "seconds", "strategy", "error"  # of an `Outcome`, beside its paths
QUIET = dict(enable_progress_bars=False, print_on_execution_start=False, max_errored_blocks=ERRORS)


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
        workers = workers or found.pop("count")
        found.pop("count", None)
        with closing(_answers(left, Filler, (_place(), load, options), workers, found)) as answers:
            for row in answers:
                number, stopped = row.pop("number"), row.pop("stopped")
                if stopped: raise InputError(row["error"])
                if job := left.pop(number, None): yield Outcome(job.image, job.out, **row)
        for job in left.values():
            task = _alone.options(**found).remote(_place(), load, options, job)
            try: yield _got(task)
            except LOST: yield Outcome(job.image, job.out).failed(KILLED)


def _answers(jobs, actor, args, workers, found):
    "Rows of what `actor`s say of `jobs`, number → `Job`, by Ray Data"
    logging.getLogger("ray.data").setLevel("ERROR")
    context = ray.data.DataContext.get_current()
    for name, value in QUIET.items(): setattr(context, name, value)
    size = min(math.ceil(len(jobs)/(BATCHES*workers)), BATCH)
    count = math.ceil(len(jobs)/size)
    blocks = ray.data.from_items([dict(number=i, **job._asdict()) for i, job in jobs.items()],
                                 override_num_blocks=count)
    rows = blocks.map_batches(actor, fn_constructor_args=args, batch_size=size,
                              compute=ray.data.ActorPoolStrategy(size=min(workers, count)), **found,
                              ray_remote_args_fn=partial(dict, max_task_retries=RETRIES)).iter_rows()
    try: yield from rows
    except LOST as e:
        raise InputError(f"more than {ERRORS} batches have lost their workers: is there memory for so many? "
                         "The same command goes on") from e


class Filler:
    "An actor with an `Inpainter`: batches of numbered jobs become batches of outcomes"
    def __init__(self, place, load, options): self.place, self.load, self.options = place, load, options

    @property
    def inpainter(self):  # not loaded by __init__, whose errors Ray would hide in a long one of its own
        if self.load:
            self.place()
            self._inpainter, self.load = self.load(), None
        return self._inpainter

    def __call__(self, batch):
        numbers, *columns = (batch[name].tolist() for name in ("number", *Job._fields))
        jobs = [*map(Job, *columns)]
        try: outcomes, stopped = filled(self.inpainter, jobs, self.options), False
        except FAILURES as e:  # of the model: those of photographs are in their outcomes
            outcomes, stopped = [Outcome(*job[::2]).failed(str(e)) for job in jobs], True
        said = {name: [getattr(o, name) for o in outcomes] for name in SAID}
        return dict(number=numbers, stopped=[stopped]*len(jobs), **said)


def spread(function, *each, address=None, device="auto"):
    """As `map`, a list: each call is a task. What fails is raised when all others are done.

    A task whose worker is killed is started again, and so should go on where it was."""
    with connected(address):
        found = resources(device)
        found.pop("count")
        tasks = [_task.options(**found).remote(_place(), function, args) for args in zip(*each, strict=True)]
        values, errors = [], []
        for task in tasks:
            try: values.append(_got(task))
            except (InputError, RayTaskError) as e: errors.append(e)
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
    except ConnectionError as e: raise InputError(f"no Ray cluster answers at {address}: {e}") from e
    try: yield
    finally: ray.shutdown()


def resources(device):
    "What a worker takes of the cluster, a GPU where there are, and the `count` of those that it has room for"
    found = ray.cluster_resources()
    gpus = int(found.get("GPU", 0)) if device != "cpu" else 0
    return dict(count=gpus, num_gpus=1) if gpus else dict(count=max(int(found.get("CPU", 0)), 1), num_cpus=1)


def _place():
    "A function that takes a worker to this process' folder and settings"
    return partial(_go, os.getcwd(), {k: v for k, v in os.environ.items() if k.startswith("FASTINPAINT_")})


def _go(folder, settings):
    os.environ.update(settings)
    with suppress(FileNotFoundError): os.chdir(folder)
