"Time of filling many photographs: together against one by one, and what Ray adds to a photograph"
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from PIL import Image

from fastinpaint.core.errors import MissingPackage
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.fill.jobs import Job
from fastinpaint.fill.processes import in_turn

from .settings import BenchManySettings

HEADER = f"{'threads':>7} {'texture':>7} {'one by one':>11} {'many':>9} {'ratio':>6} {'of minima':>9}"


def photographs(number, size):
    "`number` pairs of noise and a hole of a tenth, somewhere else in each"
    rng, side = np.random.default_rng(0), round(size*.1**.5)
    for _ in range(number):
        hole, (y, x) = np.zeros((size, size), bool), rng.integers(0, size - side, 2)
        hole[y:y + side, x:x + side] = True
        yield rng.integers(0, 256, (size, size, 3), dtype=np.uint8), hole


def in_rounds(runs, rounds):
    "Seconds of each of `runs` in `rounds`, in turn, after one to warm up"
    taken = [[] for _ in runs]
    for i in range(rounds + 1):
        for times, run in zip(taken, runs, strict=True):
            start = time.perf_counter()
            run()
            if i: times.append(time.perf_counter() - start)
    return taken


def together_and_alone(inpainter, pairs, rounds, texture):
    "Seconds of filling `pairs` one by one, and by `many`, in `rounds`"
    def alone(): return [inpainter(*pair, texture=texture) for pair in pairs]
    return in_rounds([alone, lambda: [*inpainter.many(pairs, texture=texture)]], rounds)


def overhead(fill, jobs):
    """Seconds that each of `jobs` takes beyond its own: all of them against half, after a run to warm up.

    What starts, starts in both."""
    taken, half = [], len(jobs)//2
    for some in jobs[:half], jobs[:half], jobs:
        start = time.perf_counter()
        outcomes = [*fill(some)]
        taken.append(time.perf_counter() - start)
    return (taken[2] - taken[1])/(len(jobs) - half) - mean(o.seconds for o in outcomes[half:])


def ray_and_local(folder, s):
    "Seconds that an item takes beyond its filling: by a Ray actor, and in this process; and of its filling"
    from fastinpaint.serve.ray import connected, fill_by_actors
    folder, jobs = Path(folder), []
    for i, (image, hole) in enumerate(photographs(s.files, s.size)):
        job = Job(*(str(folder/f"{i}-{name}.png") for name in ("image", "mask", "out")))
        Image.fromarray(image).save(job.image)
        Image.fromarray(hole).save(job.mask)
        jobs.append(job)
    load, options = partial(Inpainter, s.model, s.device), dict(texture=False)
    torch.set_num_threads(1)  # as actors do
    here = [*in_turn(jobs, load, options)]
    local = overhead(partial(in_turn, load=load, options=options), jobs)
    by_ray = partial(fill_by_actors, load=load, options=options, workers=1, device=s.device)
    with connected(): ray = overhead(by_ray, jobs)
    return ray, local, median(outcome.seconds for outcome in here)


def main(settings: BenchManySettings):
    "Print milliseconds a photograph, medians of rounds, and their ratios"
    s = settings
    inpainter, pairs = Inpainter(s.model, s.device), [*photographs(s.number, s.size)]
    print(f"{s.number} photographs of {s.size}x{s.size} on {inpainter.device}, {inpainter.at_once} at once, "
          f"ms a photograph\n{HEADER}")
    for threads in map(int, s.threads.split(",")):
        torch.set_num_threads(threads)
        for texture in (False, True)[:1 + s.texture]:
            alone, many = together_and_alone(inpainter, pairs, s.rounds, texture)
            one, together = (1e3*median(o)/s.number for o in (alone, many))
            print(f"{threads:7} {'on' if texture else 'off':>7} {one:11.1f} {together:9.1f} "
                  f"{one/together:6.2f} {min(alone)/min(many):9.2f}", flush=True)
    if not s.files: return
    try:
        with tempfile.TemporaryDirectory() as folder: ray, local, fill = ray_and_local(folder, s)
    except MissingPackage as e: return print(f"Ray: left out ({e})")
    fill, local, ray = (1e3*seconds for seconds in (fill, local, ray))
    print(f"{s.files} files without texture, a worker of one thread: {fill:.1f} ms each; beyond that a file "
          f"takes {local:.1f} ms here, {ray:.1f} ms by Ray, in all {(fill + ray)/(fill + local):.2f} times")
