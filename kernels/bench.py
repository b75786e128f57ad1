"How fast the kernels are: against plain torch, `torch.compile`, the best library call, and the memory bandwidth of the device"
import csv
import statistics
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from fastcore.script import store_true

from fastinpaint.core.script import call_parse

from . import reference
from .ops import HAS_TRITON, masked_l1, zero_conv_merge

BEYOND_CACHE = 256 << 20  # bytes that a round of buffers takes, several times the largest L2
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 4e-2}  # TF32 products
KNOWN, MISSING = .1, 1.


@dataclass
class Case:
    "An operation at one shape `[B, C, h, w]`, with a mask `scale` times as large for the loss"
    op: str
    shape: tuple
    dtype: torch.dtype
    scale: int = 1
    channels_last: bool = True

    def __str__(self):
        size = "×".join(map(str, self.shape))
        return f"{self.op} {size} {'bf16' if self.dtype == torch.bfloat16 else 'fp32'}"

    def inputs(self, device):
        "The operation's tensors; the first of a loss, and the guide and weight of a merge, want gradients"
        b, c, h, w = self.shape
        def rand(*shape): return torch.randn(shape, device=device, dtype=self.dtype).to(
            memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
        if self.op == "masked_l1":
            mask = (torch.rand(b, 1, h*self.scale, w*self.scale, device=device) < .3).float()
            return rand(*self.shape).requires_grad_(), rand(*self.shape), mask
        return rand(*self.shape), rand(*self.shape).requires_grad_(), (rand(c, c, 1, 1)/c**.5).requires_grad_()

    def bytes(self, direction):
        "What must cross memory at least: every input and output once"
        b, c, h, w = self.shape
        n, size = b*c*h*w, self.dtype.itemsize
        if self.op == "masked_l1":
            mask = b*h*w*self.scale**2*4
            forward, backward = 2*n*size + mask, n*size + n + b*h*w*4
            return {"forward": forward, "backward": backward, "both": forward + backward + n + b*h*w*4}[direction]
        return n*size*{"forward": 3, "backward": 3, "both": 6}[direction]


def naive_l1(pred, target, mask):
    "The plain expression, as one writes it first"
    mask = F.adaptive_avg_pool2d(mask, pred.shape[-2:])
    return ((KNOWN*(1 - mask) + MISSING*mask)*(pred - target).abs()).mean()


def baddbmm(x, m, weight):
    b, c, h, w = x.shape
    return torch.baddbmm(x.reshape(b, c, -1), weight.flatten(1).expand(b, -1, -1), m.reshape(b, m.shape[1], -1)).view(b, c, h, w)


def addmm(x, m, weight):
    "For channels_last, where every pixel's channels are a row"
    rows = [t.permute(0, 2, 3, 1).reshape(-1, t.shape[1]) for t in (x, m)]
    b, c, h, w = x.shape
    return torch.addmm(rows[0], rows[1], weight.flatten(1).T).view(b, h, w, c).permute(0, 3, 1, 2)


def contenders(op, with_triton, with_compile):
    "Name → function of the case's inputs"
    if op == "masked_l1":
        ours, eager, peers = masked_l1, naive_l1, {"reference": lambda p, t, m: reference.masked_l1(p, t, m, KNOWN, MISSING)}
        kwargs = dict(known=KNOWN, missing=MISSING)
    else:
        ours, eager, peers = zero_conv_merge, reference.zero_conv_merge, {"baddbmm": baddbmm, "addmm": addmm}
        kwargs = {}
    found = {"eager": eager, **peers}
    if with_compile: found["compile"] = torch.compile(eager, dynamic=False)
    if with_triton: found["triton"] = lambda *t: ours(*t, **kwargs, impl="triton")
    return found


def steps(f, inputs):
    "The three things to time, as functions without arguments"
    wanted = [t for t in inputs if t.requires_grad]
    y = f(*inputs)
    upstream = torch.randn_like(y)

    def forward():
        with torch.no_grad(): return f(*inputs)

    return {"forward": forward, "backward": lambda: torch.autograd.grad(y, wanted, upstream, retain_graph=True),
            "both": lambda: torch.autograd.grad(f(*inputs), wanted, upstream)}


def check(case, functions, device):
    "Refuse to time what computes something else"
    inputs = case.inputs(device)
    exact = [t.detach().double().requires_grad_(t.requires_grad) for t in inputs]
    truth = contenders(case.op, False, False)["eager"]

    def outcome(f, tensors):
        y = f(*tensors)
        return y.detach(), *torch.autograd.grad(y.sum(), [t for t in tensors if t.requires_grad])

    expected = outcome(truth, exact)
    for name, f in functions.items():
        for a, e in zip(outcome(f, inputs), expected, strict=True):
            error = (a.double() - e).abs().max().item()/max(e.abs().max().item(), 1e-12)
            if not error < TOLERANCE[case.dtype]: raise SystemExit(f"{case}: {name} is wrong by {error:.2e}; nothing was timed")


def seconds(calls, device, budget):
    "Median seconds of a call, taking turns through `calls`, which work on buffers of their own"
    cuda, times = device.type == "cuda", []
    for call in calls[:3]: call()
    start = time.perf_counter()
    while len(times) < 10 or time.perf_counter() - start < budget and len(times) < 500:
        call = calls[len(times) % len(calls)]
        if cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end)/1e3)
        else:
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def copy_bandwidth(device):
    "Bytes read and written per second by copies of a buffer beyond the caches"
    source = torch.empty(BEYOND_CACHE, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2*BEYOND_CACHE/seconds([lambda: target.copy_(source)]*3, device, 1.)


def peak_memory(call, device):
    "Bytes allocated at the peak of `call` beyond what was there before; None without a GPU"
    if device.type != "cuda": return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure(case, functions, device, bandwidth, budget):
    "One row a contender and direction"
    check(case, functions, device)
    copies = max(2, min(16, BEYOND_CACHE//case.bytes("forward"))) if device.type == "cuda" else 2
    buffers = [case.inputs(device) for _ in range(copies)]
    for name, f in functions.items():
        calls = [steps(f, inputs) for inputs in buffers]
        for direction in "forward", "backward", "both":
            time_ = seconds([c[direction] for c in calls], device, budget)
            rate = case.bytes(direction)/time_
            yield dict(op=case.op, shape="x".join(map(str, case.shape)), dtype=str(case.dtype).removeprefix("torch."),
                       contender=name, direction=direction, microseconds=time_*1e6,
                       gigabytes_per_second=rate/1e9, share_of_copy=rate/bandwidth,
                       peak_bytes=peak_memory(calls[0][direction], device))


def training_cases(quick):
    "What LaMa training meets: four stages, two widths, two sizes, batch 8 to 64; and one large shape"
    widths, sizes, batches, types = ((8,), (256,), (8,), ("fp32",)) if quick else ((8, 64), (256, 512), (8, 32, 64), TYPES)
    for width, size, b, dtype in product(widths, sizes, batches, types):
        yield Case("masked_l1", (b, width*8, size//8, size//8), TYPES[dtype], 8)
        for stage in range(4):
            shape = (b, width*2**stage, size >> stage, size >> stage)
            if shape[0]*shape[1]*shape[2]*shape[3] < 2**29: yield Case("zero_conv_merge", shape, TYPES[dtype])
    if not quick:
        yield Case("masked_l1", (64, 512, 128, 128), torch.bfloat16, 8)
        yield Case("zero_conv_merge", (64, 64, 256, 256), torch.bfloat16)


def table(rows):
    "Per case and direction: the fastest, and every contender's time relative to eager"
    groups = {}
    for row in rows: groups.setdefault((row["op"], row["shape"], row["dtype"], row["direction"]), {})[row["contender"]] = row
    for (op, shape, dtype, direction), found in groups.items():
        best = min(found.values(), key=lambda r: r["microseconds"])
        base = found["eager"]["microseconds"]
        ratios = "  ".join(f"{n} {r['microseconds']/base:.2f}" for n, r in found.items() if n != "eager")
        eager = f"eager {base:9.1f} µs   relative to it: {ratios}"
        speed = f"best {best['contender']}, {best['gigabytes_per_second']:.0f} GB/s, {best['share_of_copy']:.0%} of a copy"
        yield f"{op:16} {shape:16} {dtype:9} {direction:9} {eager}   {speed}"


def picture(rows, path):
    "Share of the copy bandwidth against what must cross memory, a panel for each operation, a colour for each contender"
    import matplotlib.pyplot as plt
    ops = sorted({r["op"] for r in rows})
    fig, axes = plt.subplots(1, len(ops), figsize=(6*len(ops), 4), squeeze=False, sharey=True)
    for axis, op in zip(axes[0], ops, strict=True):
        for name in dict.fromkeys(r["contender"] for r in rows if r["op"] == op):
            points = [(r["gigabytes_per_second"]*r["microseconds"]*1e3, r["share_of_copy"]) for r in rows
                      if (r["op"], r["contender"], r["direction"]) == (op, name, "both")]
            axis.scatter(*zip(*points, strict=True), label=name, s=14)
        axis.axhline(1, color="grey", lw=.8)
        axis.set(xscale="log", xlabel="bytes that must cross memory", title=f"{op}, forward and backward")
        axis.legend()
    axes[0, 0].set_ylabel("share of copy bandwidth")
    fig.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(fig)


@call_parse
def main(
    out: str = "runs/kernels",  # Folder for kernels.csv and kernels.png
    device: str = "auto",       # auto, cpu, cuda …
    quick: store_true = False,  # Width 8, 256 px, batch 8 only; always so on a CPU
    budget: float = .2,         # Seconds for each measurement
):
    "Time the fused operations against their alternatives; nothing is timed where results differ"
    device = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    with_triton = gpu and HAS_TRITON
    name = torch.cuda.get_device_name(device) if gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {sys.modules['triton'].__version__ if with_triton else 'no triton'}, {name}")
    if not gpu: print("No GPU: the kernels cannot be timed here. What follows compares the plain torch paths on the CPU.")
    bandwidth = copy_bandwidth(device)
    print(f"copy bandwidth {bandwidth/1e9:.0f} GB/s\n")
    functions, rows = {op: contenders(op, with_triton, gpu) for op in ("masked_l1", "zero_conv_merge")}, []
    for case in training_cases(quick or not gpu):
        case_rows = list(measure(case, functions[case.op], device, bandwidth, budget))
        print("\n".join(table(case_rows)), flush=True)
        rows += case_rows
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder/"kernels.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    picture(rows, folder/"kernels.png")
    print(f"\n{folder/'kernels.csv'}\n{folder/'kernels.png'}")
