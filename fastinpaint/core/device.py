"Devices, the memory at hand, and networks that are only evaluated"
import math
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from .errors import InputError
from .limits import memory_limit
from .ranks import local_rank, local_world

# where a container reads its limit: control groups of version 2, and of version 1
CGROUP_LIMITS = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"


def choose_device(name):
    """The device called `name`; for "auto", the GPU if there is one. Raises InputError where there is none.

    Of several processes on a machine each has a GPU of its own, by its `local_rank`."""
    if local_world() > 1 and name in ("auto", "cuda") and torch.cuda.is_available(): return _own_gpu()
    if name == "auto": return _default()
    if str(name).startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {name}: this torch sees no GPU")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as e:  # each backend refuses in its own way
        raise InputError(f"--device {name}: there is none on this machine; devices are called auto, cpu, "
                         "cuda (an NVIDIA or AMD GPU), cuda:1, mps") from e
    return device


def _default():
    "As fastai's `default_device`, which takes as long to import as torch"
    if torch.cuda.is_available(): return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _own_gpu():
    here, found = local_world(), torch.cuda.device_count()
    if here > found:
        raise InputError(f"{here} processes were started on this machine, which has {found} GPU(s): start "
                         f"them with --nproc_per_node {found}, or with --device cpu")
    return torch.device("cuda", local_rank())


@contextmanager
def evaluating(model):
    "`model` in eval mode, no parameter needing a gradient; then each of its parts as it was before"
    modes = {m: m.training for m in model.modules()}
    trained = [p for p in model.parameters() if p.requires_grad]
    try: yield model.eval().requires_grad_(False)
    finally:
        for m, training in modes.items(): m.training = training
        for p in trained: p.requires_grad_()


def memory_at_hand(device):
    "Bytes that a forward pass may use on `device`, within `Limits`; on a CPU within those of a container"
    return min(_memory_at_hand(device), memory_limit())


def _memory_at_hand(device):
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    used = psutil.Process().memory_info().rss
    return max(min(psutil.virtual_memory().available, container_limit() - used), 0)


def container_limit():
    "Bytes that this container may use, infinite without a limit"
    texts = [Path(o).read_text().strip() for o in CGROUP_LIMITS if Path(o).exists()]
    return min((int(o) for o in texts if o.isdigit()), default=math.inf)  # version 2 says "max"
