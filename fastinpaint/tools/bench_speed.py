"Seconds to fill one image: the network run naively against its folded form, in turn"
import statistics
from unittest.mock import patch

import torch
import torch.nn.functional as F
from fastai.torch_core import set_seed
from torch import nn

from fastinpaint.core.device import choose_device
from fastinpaint.models import lama as modules
from fastinpaint.models.folded import FoldedFFC
from fastinpaint.models.load import load_model

from .against import compare
from .bench import now
from .settings import BenchSpeedSettings


def naive(net):
    "`net` as written: fp32, eager, a BatchNorm of its own after every convolution, one pixel at a time"
    def conv_bn(padded, conv, bn): return bn(F.conv2d(padded, conv.weight, None, conv.stride))

    def run(masked, mask):
        with (torch.no_grad(), patch.object(modules, "conv_bn", conv_bn),
              patch.object(modules.HeadConv, "forward", nn.Conv2d.forward)): return net(masked, mask)
    return run


def ours(net, bf16=False):
    "A function that fills by `net`, with `bf16` under autocast"
    def run(masked, mask):
        autocast = torch.autocast(masked.device.type, torch.bfloat16, enabled=bf16)
        with torch.inference_mode(), autocast: return net(masked, mask)
    return run


def in_one_launch(net):
    "The folded `net`, whose FFCs convolve by the kernel of `ffc_convs`"
    for part in net.modules():
        if isinstance(part, FoldedFFC): part.impl = "triton"
    return net


def random_lama(width, blocks):
    "A LaMa of the published layout with random weights, its features normalised"
    net = modules.lama(width, blocks, linear=False, prefill=False, autoencoder=None)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d): m.momentum = 1.
    with torch.no_grad(): net.train()(torch.rand(1, 3, 128, 128), torch.zeros(1, 1, 128, 128))
    return net.eval()


def run_times(runs, masked, mask, rounds):
    "Seconds of each of `rounds` runs of each of `runs`, in turn after one to warm up"
    times = {name: [] for name in runs}
    for r in range(rounds + 1):
        for name, run in runs.items():
            start = now(masked.is_cuda)
            run(masked, mask)
            if r: times[name].append(now(masked.is_cuda) - start)
    return times


def main(settings: BenchSpeedSettings):
    "Print seconds of each run, its speed relative to the naive one, and how far it differs"
    s, device, size = settings, choose_device(settings.device), settings.size
    set_seed(0)
    if s.against: return compare(s, device)
    torch.set_num_threads(s.threads)
    net = (load_model("sample") if s.width == 8 else random_lama(s.width, s.blocks)).to(device)
    mask = torch.zeros(1, 1, size, size, device=device)
    mask[..., size//4:size//2, size//4:3*size//4] = 1
    masked = torch.rand(1, 3, size, size, device=device)*(1 - mask)
    fast = net.folded()
    runs = dict(naive=naive(net), faster=ours(fast))
    if s.bf16: runs["bf16"] = ours(net.folded(winograd=False), bf16=True)
    if s.convs: runs["one launch"] = ours(in_one_launch(net.folded(winograd=False)))
    if s.compile: runs["compiled"] = ours(torch.compile(fast))
    expected, times = runs["naive"](masked, mask), run_times(runs, masked, mask, s.rounds)
    print(f"torch {torch.__version__}, {device}, {s.threads} threads, width {s.width}, {size} px: "
          f"{s.rounds} runs each, in turn")
    for name, t in times.items():
        median, least = (f(times["naive"])/f(t) for f in (statistics.median, min))
        off = (runs[name](masked, mask) - expected).abs().max()/(expected.max() - expected.min())
        print(f"{name:10} {statistics.median(t):8.4f} s (min {min(t):.4f}), {median:.2f} times as fast "
              f"(of minima: {least:.2f}), largest difference {off:.1e} of the range")
