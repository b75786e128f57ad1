"Devices, the memory at hand, and networks in eval mode"
import os
import re
from contextlib import contextmanager
from pathlib import Path

import torch
from fastai.torch_core import default_device


def choose_device(name):
    "The device called `name`; for auto, the GPU if there is one"
    if name == "auto": return default_device()
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available(): raise ValueError(f"--device {name}: this torch sees no GPU")
    return device


@contextmanager
def evaluating(model):
    "`model` in eval mode, then each of its modules in its own again: those of frozen parts differ from the rest"
    modes = {m: m.training for m in model.modules()}
    try: yield model.eval()
    finally:
        for m, training in modes.items(): m.training = training


def memory_at_hand(device):
    "Bytes that a forward pass may use on `device`: of a CPU's memory what the system calls available, within a container's limit"
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    page = os.sysconf("SC_PAGE_SIZE")
    try: found = int(re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())[1])*1024
    except FileNotFoundError: return os.sysconf("SC_PHYS_PAGES")*page//2  # not Linux
    try: limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (FileNotFoundError, ValueError): return found  # no container, or one with "max": no limit
    return min(found, limit - int(Path("/proc/self/statm").read_text().split()[1])*page)
