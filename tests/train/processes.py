"Runs a function in several processes that meet over gloo, as torchrun would"
import os
import socket
from contextlib import closing

import torch
from torch import distributed as dist

LAUNCHED = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"


def free_port():
    with closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _run(rank, world, port, work, folder, args):
    values = rank, world, rank, world, "127.0.0.1", port
    os.environ |= {k: str(v) for k, v in zip(LAUNCHED, values, strict=True)}
    torch.set_num_threads(1)
    torch.save(work(*args), folder/f"{rank}.pt")
    if dist.is_initialized(): dist.destroy_process_group()


def results_of(work, world, folder, *args):
    "What `work(*args)` returns in each of `world` processes; they are forked, which saves the imports"
    folder.mkdir(parents=True, exist_ok=True)
    torch.multiprocessing.start_processes(_run, (world, free_port(), work, folder, args), world,
                                          start_method="fork")
    return [torch.load(folder/f"{rank}.pt", weights_only=False) for rank in range(world)]
