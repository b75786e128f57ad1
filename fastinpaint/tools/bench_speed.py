"Seconds to fill one image: the network run naively against its folded form, interleaved in one run"
import statistics
import time
from unittest.mock import patch

import torch
from fastai.torch_core import set_seed
from torch import nn

from fastinpaint.all import *
from fastinpaint.core.device import choose_device
from fastinpaint.models import lama as modules


def naive(net):
    "`net` as written: fp32, eager, a BatchNorm of its own after every convolution"
    def run(masked, mask):
        with torch.no_grad(), patch.object(modules, "conv_bn", lambda x, conv, bn: bn(conv(x))): return net(masked, mask)
    return run


def ours(net, bf16=False):
    def run(masked, mask):
        with torch.inference_mode(), torch.autocast(masked.device.type, torch.bfloat16, enabled=bf16): return net(masked, mask)
    return run


def random_lama(width, blocks):
    "A LaMa of the published layout with random weights, and BatchNorm statistics that keep features at a usual size"
    net = lama(width, blocks, linear=False, prefill=False, autoencoder=None)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d): m.momentum = 1.
    with torch.no_grad(): net.train()(torch.rand(1, 3, 128, 128), torch.zeros(1, 1, 128, 128))
    return net.eval()


def run_times(runs, masked, mask, rounds):
    "Seconds of each of `rounds` runs of each of `runs`, in turn after one to warm up"
    wait = torch.cuda.synchronize if masked.is_cuda else lambda: None
    times = {name: [] for name in runs}
    for r in range(rounds + 1):
        for name, run in runs.items():
            wait()
            start = time.perf_counter()
            run(masked, mask)
            wait()
            if r: times[name].append(time.perf_counter() - start)
    return times


@call_parse
def main(
    width: int = 8,        # 8: the sample model; any other: a LaMa of that width with random weights
    size: int = 512,       # Side of the image in pixels
    blocks: int = 9,       # Residual blocks, of random weights
    rounds: int = 20,      # Runs of each
    device: str = "auto",  # auto, cpu, cuda …
    threads: int = 2,      # CPU threads
    bf16: store_true = False,     # Time ours in bfloat16 autocast too
    compile: store_true = False,  # Time ours through torch.compile too (needs a C++ compiler, and minutes)
):
    "Compare a network run naively with its folded form: one image, batch 1"
    set_seed(0)
    torch.set_num_threads(threads)
    device = choose_device(device)
    net = (load_model("sample") if width == 8 else random_lama(width, blocks)).to(device)
    mask = torch.zeros(1, 1, size, size, device=device)
    mask[..., size//4:size//2, size//4:3*size//4] = 1
    masked = torch.rand(1, 3, size, size, device=device)*(1 - mask)
    fast = net.folded()
    runs = dict(naive=naive(net), faster=ours(fast))
    if bf16: runs["bf16"] = ours(net.folded(winograd=False), bf16=True)
    if compile: runs["compiled"] = ours(torch.compile(fast))
    expected, times = runs["naive"](masked, mask), run_times(runs, masked, mask, rounds)
    print(f"torch {torch.__version__}, {device}, {threads} threads, width {width}, {size} px: {rounds} runs each, in turn")
    for name, t in times.items():
        ratio, least = statistics.median(times["naive"])/statistics.median(t), min(times["naive"])/min(t)
        off = (runs[name](masked, mask) - expected).abs().max()/(expected.max() - expected.min())
        print(f"{name:10} {statistics.median(t):8.4f} s (min {min(t):.4f}), {ratio:.2f} times as fast (of minima: {least:.2f}), "
              f"largest difference {off:.1e} of the range")
