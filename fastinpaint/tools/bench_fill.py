"Seconds and peak memory of filling one photograph, for growing sizes"
import json
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch

from fastinpaint.fill.inpainter import Inpainter

from .settings import BenchFillSettings

HEADER = f"{'side':>6} {'seconds':>9} {'s/Mpx':>8} {'MiB':>8} {'MiB/Mpx':>8}"


def measured(side, share, model, device, precision, strategy):
    "Seconds of filling a hole of this `share` of the image, and MiB that this adds to the process"
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    hole, start = np.zeros((side, side), bool), round(side*(1 - share**.5)/2)
    hole[start:side - start, start:side - start] = True
    inpainter = Inpainter(model, device, precision, strategy)
    gpu = inpainter.device.type == "cuda"
    inpainter(image[:64, :64], np.eye(64, dtype=bool))  # what only a first call does
    if gpu: torch.cuda.reset_peak_memory_stats()
    before, start = _peak(gpu), time.perf_counter()
    inpainter(image, hole)
    return time.perf_counter() - start, (_peak(gpu) - before)/2**20


def _peak(gpu):
    "Bytes; Linux counts resident memory in KiB"
    if gpu: return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024


def main(settings: BenchFillSettings):
    "Print a line for each side, each measured in a process of its own, as peaks never fall"
    about = dict(vars(settings))
    sides, alone = about.pop("sides"), about.pop("alone")
    if alone: return print(json.dumps(measured(alone, **about)))
    print(*(f"{k} {v}" for k, v in about.items()), f"{torch.get_num_threads()} threads\n{HEADER}", sep=", ")
    for side in map(int, sides.split(",")):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            seconds, mib = process.submit(measured, side, **about).result()
        pixels = side**2/1e6
        print(f"{side:6} {seconds:9.2f} {seconds/pixels:8.2f} {mib:8.0f} {mib/pixels:8.0f}", flush=True)
