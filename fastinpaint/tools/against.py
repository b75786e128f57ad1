"Our training step and fill against the public LaMa code, run in turn; its file is the user's"
import statistics
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.progress import ProgressCallback
from torch import nn

from fastinpaint import all as fi
from fastinpaint.core.errors import InputError

from .bench import METHODS, RepeatBatch, StepSeconds, bundled, now

# what ffc.py imports of the rest of LaMa's package, which its generator does without here
STUBS = ["", ".training", ".training.modules", ".training.modules.base",
         ".training.modules.spatial_transform", ".training.modules.squeeze_excitation", ".utils"]


BATCH = 8
LAYERS = {"": {}, ", LaMa's layers": dict(linear=False, prefill=False)}


class Stub(ModuleType):
    "A module in which every name is an empty `nn.Module`"
    __path__ = ()
    def __getattr__(self, name): return nn.Module


def public_generator(path, width, blocks):
    """LaMa's generator `[B, 4, H, W]` → `[B, 3, H, W]`, from its file saicinpainting/training/modules/ffc.py.

    As LaMa trains it: all spectral transforms without the local Fourier unit. Raises InputError for another
    file."""
    path = Path(path)
    if not path.is_file(): raise InputError(f"--against {path}: no such file; expected LaMa's ffc.py")
    spec = spec_from_file_location("public_ffc", path)
    module = module_from_spec(spec)
    names = [f"saicinpainting{name}" for name in STUBS]
    with patch.dict(sys.modules, {name: Stub(name) for name in names}): spec.loader.exec_module(module)
    if not hasattr(module, "FFCResNetGenerator"):
        raise InputError(f"--against {path} has no FFCResNetGenerator; expected LaMa's "
                         "saicinpainting/training/modules/ffc.py")
    local, glob = (dict(ratio_gin=ratio, ratio_gout=ratio, enable_lfu=False) for ratio in (0, .75))
    net = module.FFCResNetGenerator(4, 3, width, 3, blocks, init_conv_kwargs=local, resnet_conv_kwargs=glob,
                                    downsample_conv_kwargs=local, add_out_act=False)
    return nn.Sequential(net, nn.Sigmoid())


def clock(cuda):
    "Seconds; of one CPU thread those that it worked, which other programs do not lengthen"
    return now(cuda) if cuda or torch.get_num_threads() > 1 else time.process_time()


def public_step(net, batch):
    "Makes a function that gives the seconds of a training step"
    optimizer = torch.optim.Adam(net.train().parameters(), 1e-3)
    masked, mask, image, _ = batch

    def run():
        start = clock(image.is_cuda)
        optimizer.zero_grad()
        (net(torch.cat([masked, mask], dim=1)) - image).abs().mean().backward()
        optimizer.step()
        return clock(image.is_cuda) - start
    return run


def our_step(method, batch, width, blocks, bf16=False, **layers):
    "The same of one of our methods, on the bundled autoencoder where it fits"
    model, loss, cbs = method()
    if bf16: cbs = [*cbs, fi.BFloat16()]
    timer, loaders = StepSeconds(clock), [RepeatBatch(batch, n) for n in (1, 0)]
    dls = fi.DataLoaders(*loaders, device=batch[0].device)
    net = model(width=width, blocks=blocks, autoencoder=bundled(width), **layers)
    learn = fi.inpaint_learner(dls, net, loss, metrics=[], cbs=[*cbs, ChannelsLast(), timer])
    learn.remove_cb(ProgressCallback)

    def run():
        with learn.no_logging(): learn.fit(1)
        return timer.seconds.pop()
    return run


def public_fill(net, masked, mask):
    net.eval()
    return lambda: net(torch.cat([masked, mask], dim=1))


def our_fill(width, blocks, masked, mask, **layers):
    net = fi.lama(width, blocks, control="mask", autoencoder=None, **layers)
    net = fi.Inpainter(net.to(masked.device)).net
    return lambda: net(masked, mask)


def timed(fill):
    "A function that fills and gives the seconds of it"
    def run():
        start = clock(torch.cuda.is_initialized())
        with torch.inference_mode(): fill()
        return clock(torch.cuda.is_initialized()) - start
    return run


def in_turn(runs, rounds):
    "Seconds of each of `runs` (name → function that gives them), `rounds` times in turn after one to warm up"
    seconds = {name: [] for name in runs}
    for r in range(rounds + 1):
        for name, run in runs.items():
            found = run()
            if r: seconds[name].append(found)
    return seconds


def report(what, seconds, images):
    "A line for each of `seconds`; ratios are to the first, the public code"
    public, *_ = seconds.values()
    for name, s in seconds.items():
        least, median = min(s), statistics.median(s)
        print(f"{what} {name:35} {median:7.4f} s (min {least:.4f}), {images/median:5.1f} images/s, "
              f"{statistics.median(public)/median:.2f} times as fast (of minima: {min(public)/least:.2f})")


def contenders(s, device):
    "Training steps on `BATCH` images of half of `s.size`, and fills of one of it: two tables of functions"
    def images(n, size):
        image = torch.rand(n, 3, size, size, device=device)
        mask = torch.zeros_like(image[:, :1])
        mask[..., size//4:size//2, size//4:3*size//4] = 1
        return image*(1 - mask), mask, image, mask
    def public(): return public_generator(s.against, s.width, s.blocks).to(device)
    batch, photo = images(BATCH, s.size//2), images(1, s.size)[:2]
    steps = {"public": public_step(public(), batch)}
    fills = {"public": timed(public_fill(public(), *photo))}
    for suffix, layers in LAYERS.items():
        steps |= {name + suffix: our_step(method, batch, s.width, s.blocks, **layers)
                  for name, method in METHODS.items()}
        if s.bf16:  # not for the public code, which asks for Fourier transforms of bfloat16
            steps |= {f"{name}{suffix}, bf16": our_step(method, batch, s.width, s.blocks, True, **layers)
                      for name, method in METHODS.items()}
        fills["filled" + suffix] = timed(our_fill(s.width, s.blocks, *photo, **layers))
    return steps, fills


def compare(s, device):
    "Print times of training steps and of fills, and their ratios to the public code's, by number of threads"
    steps, fills = contenders(s, device)
    for threads in sorted({1, s.threads}):
        torch.set_num_threads(threads)
        print(f"torch {torch.__version__}, {device}, {threads} threads, width {s.width}, {s.blocks} blocks, "
              f"steps of {BATCH} images of {s.size//2} px, fills of one of {s.size}: {s.rounds} each")
        report("step", in_turn(steps, s.rounds), BATCH)
        report("fill", in_turn(fills, s.rounds), 1)
