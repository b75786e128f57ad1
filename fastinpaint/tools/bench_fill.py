"Seconds and peak memory of filling one photograph, side by side for growing sizes, each in a process of its own"
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from fastinpaint.core.script import call_parse
from fastinpaint.fill.inpainter import Inpainter

HEADER = f"{'side':>6} {'seconds':>9} {'s/Mpx':>8} {'MiB':>8} {'MiB/Mpx':>8}"


def measured(side, share, model, device, precision, strategy):
    "Seconds of filling a square hole of so large a `share` in the middle, and MiB that this adds to what the process had"
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    hole, start = np.zeros((side, side), bool), round(side*(1 - share**.5)/2)
    hole[start:side - start, start:side - start] = True
    inpainter = Inpainter(model, device, precision, strategy)
    gpu = inpainter.device.type == "cuda"
    inpainter(image[:64, :64], np.eye(64, dtype=bool))  # what the first call alone does
    if gpu: torch.cuda.reset_peak_memory_stats()
    before, start = _peak(gpu), time.perf_counter()
    inpainter(image, hole)
    return time.perf_counter() - start, (_peak(gpu) - before)/2**20


def _peak(gpu):
    "Bytes; Linux counts resident memory in KiB"
    return torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024


@call_parse
def main(
    share: float = .1,         # Share of hole, a square in the middle
    model: str = "sample",     # As for `Inpainter`
    device: str = "auto",      # auto, cpu, cuda …
    precision: str = "fp32",   # fp32 or bf16
    strategy: str = "auto",    # auto, whole, crop, tiles or resize
    sides: str = "512,1024,2048,4096",  # Sides of the photographs in pixels
    alone: int = 0,            # Measure this side in this process and print JSON
):
    "Fill photographs of growing sizes: time and memory should grow no faster than pixels"
    settings = dict(share=share, model=model, device=device, precision=precision, strategy=strategy)
    if alone: return print(json.dumps(measured(alone, **settings)))
    flags = [f"--{k}={v}" for k, v in settings.items()]
    print(f"{', '.join(f'{k} {v}' for k, v in settings.items())}, {torch.get_num_threads()} threads\n{HEADER}")
    for side in map(int, sides.split(",")):
        run = subprocess.run([sys.executable, __file__, f"--alone={side}", *flags], check=True, stdout=subprocess.PIPE)
        seconds, mib = json.loads(run.stdout.splitlines()[-1])
        pixels = side**2/1e6
        print(f"{side:6} {seconds:9.2f} {seconds/pixels:8.2f} {mib:8.0f} {mib/pixels:8.0f}", flush=True)
