"What the processes of a run do together; without others every function gives back what it is given"
import atexit
import os
import platform
from contextlib import contextmanager
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist

from .errors import InputError
from .ranks import is_main, local_rank, rank, world

TIMEOUT = timedelta(minutes=10)  # of a process that hangs; one that dies is noticed at once
PATIENCE = timedelta(days=1)     # while one process of a machine downloads


def start(device):
    "Meet the other processes that the launcher started, if there are any: over nccl on GPUs, else gloo"
    if world() == 1 or dist.is_initialized(): return
    if device.type == "cuda": torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT, store=_store(),
                            rank=rank(), world_size=world())
    atexit.register(dist.destroy_process_group)


@cache
def _store():
    "Where the processes meet; that of torchrun still has the addresses of those that it starts again"
    store, *_ = next(dist.rendezvous("env://", timeout=TIMEOUT))
    return dist.PrefixStore(f"life {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def started(): return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _device(): return f"cuda:{torch.cuda.current_device()}" if "nccl" in dist.get_backend() else "cpu"


@contextmanager
def others_answer():
    "Raises InputError where a process has ended, or does not answer for `TIMEOUT`"
    try: yield
    except RuntimeError as e:
        if not (isinstance(e, dist.DistError) or "gloo" in str(e)): raise
        raise InputError(f"process {rank()} waits for the others in vain: one of them has ended, for the "
                         f"reason that it or the launcher names, or is silent for {TIMEOUT}") from e


@torch.no_grad()
def mean(x):
    "The mean of the tensor `x` over all processes, which have it in one shape; a new tensor without gradient"
    if not started(): return x.detach()
    x = x.detach().clone()
    with others_answer(): dist.all_reduce(x)
    return x/dist.get_world_size()


def batch_mean(x):
    """`mean` of a statistic of a training batch, so that it is that of the batches of all processes.

    Without gradients it is `x`: processes do not validate in step, one may have a batch more."""
    return mean(x) if torch.is_grad_enabled() else x.detach()


def channel_statistics(x):
    """Mean and standard deviation `[1, C, 1, 1]` of the channels of the whole training batch `[B, C, h, w]`.

    No deviation is below a hundredth of the largest: a channel that never changes would count without end."""
    mean = batch_mean(x.mean((0, 2, 3), keepdim=True))
    std = batch_mean((x - mean).square().mean((0, 2, 3), keepdim=True)).sqrt()
    return mean, std.maximum(std.max()/100).clamp_min(1e-6)


def total(values):
    "Sums over all processes of a list of numbers, as floats"
    values = [float(v) for v in values]
    if not started(): return values
    sums = torch.tensor(values, dtype=torch.float64, device=_device())
    with others_answer(): dist.all_reduce(sums)
    return sums.tolist()


def gathered(x):
    "The rows of `x` `[B, …]`, of one shape in all processes, in their order `[N·B, …]`"
    if not started(): return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    with others_answer(): dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def take_from_main(tensors):
    "Give each of `tensors` the values that it has in the main process"
    if not started(): return
    with torch.no_grad(), others_answer():
        for t in tensors: dist.broadcast(t.detach(), 0)


def of_main(make):
    "What `make()` gives in the main process, which alone calls it"
    if not started(): return make()
    found = [make() if is_main() else None]
    with others_answer(): dist.broadcast_object_list(found, 0)
    return found[0]


@contextmanager
def first_of_machine_first():
    "One process of each machine goes through the block, and the others after it: they find its downloads"
    if world() > 1 and local_rank(): _store().wait([_turn()], PATIENCE)
    yield
    if world() > 1 and not local_rank(): _store().set(_turn(), "over")


def _turn(): return f"first process of {platform.node()}"
