"""Kills, full disks and failing reads, at random and in turn: `python tests/soak/soak.py 100` kills so often.

Every piece of work is done once in peace, then again and again in a child that is killed, and has to end
with the same bytes. Children are forks of a process that has imported everything: a kill costs a second."""
import builtins
import errno
import io
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

import fastinpaint.all  # noqa: F401 - what recipes need: a child has it from the beginning
from fastinpaint.core.errors import InputError
from fastinpaint.data.shard_writer import write_shards
from fastinpaint.fill.folder import fill_folder
from fastinpaint.models.lama import lama
from fastinpaint.models.load import save_model

matplotlib.use("Agg")
torch.set_num_threads(1)
TRAINING = dict(size=32, bs=2, epochs=6, steps=12, width=2, blocks=1, device="cpu", workers=0, valid=".25",
                autoencoder="none", perceptual="none", ema=.9)


def photographs(folder):
    "Photographs, masks and a model in `folder`"
    rng, mask = np.random.default_rng(0), np.zeros((40, 48), bool)
    mask[10:20, 10:30] = True
    for name in "photos", "masks": (folder/name).mkdir()
    for i in range(8):
        small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        small.resize((48, 40), Image.Resampling.BICUBIC).save(folder/f"photos/{i}.png")
        Image.fromarray(mask).save(folder/f"masks/{i}.png")
    torch.manual_seed(0)
    save_model(lama(2, 1, autoencoder=None), folder/"tiny.safetensors")


def train(home, out):
    "LaMa with its discriminator and a moving average of the weights"
    resume = (out/"lama/checkpoint.pt").is_file()
    import_module("fastinpaint.recipes.lama").main(**TRAINING, data=str(home/"photos"), out=str(out),
                                                   resume=resume, overwrite=not resume)


def fill(home, out):
    result = fill_folder(home/"photos", home/"masks", out, home/"tiny.safetensors", device="cpu")
    if result.failed: raise InputError(str(result))


def shard(home, out): write_shards(home/"photos", out, 0, 2)


WORK = dict(shard=(shard, "*"), fill=(fill, "*.png"), train=(train, "lama/model.safetensors"))


def left(out, pattern): return {o.name: o.read_bytes() for o in sorted(out.glob(pattern)) if o.is_file()}


def child(work, *args, ranks=1):
    "Process ids of forks that do it, quietly, and end with exit code 0 where they have"
    with socket.create_server(("127.0.0.1", 0)) as server: port = server.getsockname()[1]
    return [_fork(work, args, rank, ranks, port) for rank in range(ranks)]


def _fork(work, args, rank, ranks, port):
    if pid := os.fork(): return pid
    code = 1
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        for stream in 1, 2: os.dup2(silence, stream)
        if ranks > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks),
                              LOCAL_WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        work(*args)
        code = 0
    finally: os._exit(code)


def killed(name, home, kills, rng, ranks=1):
    "Kill work `kills` times at random moments; raises AssertionError where it ends with other bytes"
    work, pattern = WORK[name]
    out, begun = home/f"{name}{ranks}-whole", time.monotonic()
    assert [os.waitpid(pid, 0)[1] for pid in child(work, home, out, ranks=ranks)] == [0]*ranks
    expected, lasts, done = left(out, pattern), time.monotonic() - begun, Counter()
    assert expected
    while done["kills"] < kills:
        out = home/f"{name}{ranks}-{done['runs']}"
        done["runs"] += 1
        while True:
            pids = child(work, home, out, ranks=ranks)
            if done["kills"] < kills: time.sleep(rng.uniform(0, lasts))
            victim = rng.choice(pids)
            if done["kills"] < kills and os.waitpid(victim, os.WNOHANG)[0] == 0:
                os.kill(victim, signal.SIGKILL)
                done["kills"] += 1
            else: victim = None if done["kills"] >= kills else victim
            codes = [_code(pid) for pid in pids]
            if all(code in (0, None) for code in codes) and left(out, pattern): break
        assert left(out, pattern) == expected, f"{name} ended with other bytes"
        shutil.rmtree(out)
    return done


def _code(pid):
    "Of an ended process, None of one that has been waited for"
    try: return os.waitpid(pid, 0)[1]
    except ChildProcessError: return None


def done_in_peace(work, home, out):  # and quiet
    with open(os.devnull, "w") as silence, redirect_stdout(silence): work(home, out)


@contextmanager
def failing(owner, name, at, fail):
    "Call number `at` of `owner.name` is `fail(*args)`; of `open`, only what reads the soak's files counts"
    before, calls = getattr(owner, name), Counter()
    def call(*args, **kwargs):
        counts = owner is os or reads(*args, **kwargs)
        calls[name] += counts
        return (fail if counts and calls[name] == at else before)(*args, **kwargs)
    setattr(owner, name, call)
    try: yield calls
    finally: setattr(owner, name, before)


def full(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
def broken(path, *_, **__): raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
def vanished(path, *_, **__): raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
def short(path, *_, **__): return io.BytesIO(Path(path).read_bytes()[:60])


# pathlib calls the `open` of io
READING = [(owner, "open", fail) for owner in (builtins, io) for fail in (broken, vanished, short)]
FAILURES = [(os, "fsync", full), *READING]


def failed(name, home, most):
    "Let every write and every read fail once, `most` of each; done again in peace, it is the same bytes"
    work, pattern = WORK[name]
    done_in_peace(work, home, out := home/f"{name}-calm")
    expected, done = left(out, pattern), Counter()
    for owner, call, fail in FAILURES:
        for at in range(1, most + 1):
            out = home/f"{name}-{fail.__name__}-{at}"
            with failing(owner, call, at, fail) as calls:
                try: done_in_peace(work, home, out)
                except (InputError, OSError): done["told"] += 1
            if calls[call] < at: break
            done[fail.__name__] += 1
            # shards and trainings leave out a photograph that cannot be read, and say so
            if fail is full or name == "fill":
                done_in_peace(work, home, out)
                assert left(out, pattern) == expected, f"{name}, {fail.__name__} {at}"
            shutil.rmtree(out, ignore_errors=True)
    return done


def reads(path, mode="r", *_, **__):
    "Whether a call of `open` reads a file of the soak's own"
    own = isinstance(path, str | os.PathLike) and os.fspath(path).startswith(tempfile.gettempdir())
    return own and mode in ("r", "rb")


def soak(kills, most, seed=0):
    "Yields what was done to each piece of work, counted; raises AssertionError where it ends otherwise"
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as home:
        photographs(home := Path(home))
        for name in WORK: yield f"{name}, killed", killed(name, home, kills, rng)
        yield "one of two that train, killed", killed("train", home, kills, rng, ranks=2)
        for name in WORK: yield f"{name}, failures", failed(name, home, most)


if __name__ == "__main__":
    for what, done in soak(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 20):
        print(f"{what:32} {', '.join(f'{count} {name}' for name, count in done.items())}", flush=True)
