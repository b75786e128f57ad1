"Times the kernels against plain torch, `torch.compile`, library calls and a memory copy"
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer

from fastinpaint.core.device import choose_device
from fastinpaint.core.errors import MissingPackage
from fastinpaint.core.program import program
from fastinpaint.core.settings import flag

from . import ffc, fourier, reference
from .cases import Case, training_cases  # noqa: F401
from .ops import HAS_TRITON, masked_l1, nearest, zero_conv_merge
from .prefill import smooth_fill

COPIED = 256 << 20  # bytes, several times the largest cache
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 4e-2}  # TF32 products
OPERATIONS = "masked_l1", "zero_conv_merge", "nearest", "fourier_unit", "ffc_convs", "smooth_fill"
WEIGHTS = dict(known=.1, missing=1.)


def naive_l1(pred, target, mask):
    "The plain expression, as one writes it first"
    mask = F.adaptive_avg_pool2d(mask, pred.shape[-2:])
    weight = WEIGHTS["known"]*(1 - mask) + WEIGHTS["missing"]*mask
    return (weight*(pred - target).abs()).mean()


def baddbmm(x, m, weight):
    return torch.baddbmm(x.flatten(2), weight.flatten(1).expand(len(x), -1, -1), m.flatten(2)).view_as(x)


def addmm(x, m, weight):
    "For channels_last, where every pixel's channels are a row"
    x, m = (t.movedim(1, -1) for t in (x, m))
    return torch.addmm(x.flatten(0, 2), m.flatten(0, 2), weight.flatten(1).T).view_as(x).movedim(-1, 1)


def cdist(queries, sources):
    "The plain expression for nearest, which keeps a matrix N×M"
    return torch.cdist(queries, sources).min(1).values.square()


def distance(queries, sources, impl):
    "Ours, without the index: the distance is computed from what it says"
    return nearest(queries, sources, impl=impl)[0]


def transformed(*tensors, impl):
    "The Fourier unit without the statistics"
    return fourier.fourier_unit(*tensors, impl=impl)[0]


def contenders(op, with_triton, with_compile):
    "Name → function of the case's inputs"
    if op == "zero_conv_merge":
        ours, found = zero_conv_merge, dict(eager=reference.zero_conv_merge, baddbmm=baddbmm, addmm=addmm)
    elif op == "fourier_unit":
        ours = transformed
        found = dict(eager=partial(ours, impl="fft"), products=partial(ours, impl="torch"))
    elif op == "ffc_convs":
        ours, found = ffc.ffc_convs, dict(eager=reference.ffc_convs)
    elif op == "smooth_fill":
        ours, found, with_compile = smooth_fill, dict(eager=smooth_fill), False  # that takes a minute a shape
    elif op == "nearest":
        ours, found = distance, dict(eager=cdist, reference=partial(distance, impl="torch"))
    else:
        ours, plain = (partial(f, **WEIGHTS) for f in (masked_l1, reference.masked_l1))
        found = dict(eager=naive_l1, reference=plain)
    # inductor falls back on complex numbers
    if with_compile: found["compile"] = torch.compile(found.get("products", found["eager"]), dynamic=False)
    if with_triton: found["triton"] = partial(ours, impl="triton")
    return found


def steps(f, inputs):
    "What to time, as functions without arguments: only a forward pass where nothing has a gradient"
    wanted, forward = [t for t in inputs if t.requires_grad], torch.no_grad()(lambda: f(*inputs))
    if not wanted: return dict(forward=forward)
    y = f(*inputs)
    upstream = torch.randn_like(y)
    return dict(forward=forward,
                backward=lambda: torch.autograd.grad(y, wanted, upstream, retain_graph=True),
                both=lambda: torch.autograd.grad(f(*inputs), wanted, upstream))


def check(case, functions, device):
    "Refuse to time what computes something else: raises RuntimeError"
    inputs = case.inputs(device)
    exact = [t.detach().double().requires_grad_(t.requires_grad) for t in inputs]

    eager = contenders(case.op, False, False)["eager"]
    upstream = torch.rand_like(eager(*exact).detach()) + .5  # of a sum it can be 0 in a Fourier unit

    def outcome(f, tensors):
        y, wanted = f(*tensors), [t for t in tensors if t.requires_grad]
        return y.detach(), *(torch.autograd.grad(y, wanted, upstream.to(y)) if wanted else ())

    expected = outcome(eager, exact)
    for name, f in functions.items():
        for a, e in zip(outcome(f, inputs), expected, strict=True):
            error = (a.double() - e).abs().max().item()/max(e.abs().max().item(), 1e-12)
            if not error < TOLERANCE[case.dtype]:
                raise RuntimeError(f"{case}: {name} is wrong by {error:.2e}; nothing was timed")


def seconds(call, device, budget):
    "Median seconds of `call`, timed for `budget` seconds; a GPU's cache is cleared each time"
    if device.type == "cuda":
        from triton.testing import do_bench
        return do_bench(call, warmup=250*budget, rep=1000*budget, return_mode="median")/1e3
    timer = Timer("call()", globals=dict(call=call), num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=budget).median


def copy_bandwidth(device):
    "Bytes read and written per second by copies of a buffer beyond the caches"
    source, target = torch.empty(2, COPIED, dtype=torch.uint8, device=device)
    return 2*COPIED/seconds(lambda: target.copy_(source), device, 1.)


def peak_memory(call, device):
    "Bytes allocated at the peak of `call` beyond what was there before; None without a GPU"
    if device.type != "cuda": return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


def measure(case, functions, device, bandwidth, budget):
    "A row for each contender and direction"
    check(case, functions, device)
    inputs = case.inputs(device)
    shape, dtype = "x".join(map(str, case.shape)), str(case.dtype).removeprefix("torch.")
    for name, f in functions.items():
        for direction, call in steps(f, inputs).items():
            time_ = seconds(call, device, budget)
            rate = case.bytes(direction)/time_
            yield dict(op=case.op, shape=shape, dtype=dtype, contender=name, direction=direction,
                       microseconds=time_*1e6, expected_microseconds=case.expected(direction)*1e6,
                       gigabytes_per_second=rate/1e9, share_of_copy=rate/bandwidth,
                       peak_bytes=peak_memory(call, device))


def table(rows):
    "A case's directions: the fastest contender, and everyone's time relative to eager"
    groups = rows.set_index("contender").groupby(["op", "shape", "dtype", "direction"], sort=False)
    for (op, shape, dtype, direction), found in groups:
        best, base = found.loc[found.microseconds.idxmin()], found.microseconds["eager"]
        ratios = "  ".join(f"{n} {t/base:.2f}" for n, t in found.microseconds.items() if n != "eager")
        yield (f"{op:16} {shape:16} {dtype:9} {direction:9} eager {base:9.1f} µs   relative to it: "
               f"{ratios}   kernels on an H100, by arithmetic, {best.expected_microseconds:.1f} µs   "
               f"best {best.name}, {best.gigabytes_per_second:.0f} GB/s, "
               f"{best.share_of_copy:.0%} of a copy")


def picture(rows, path):
    "Share of the copy bandwidth against bytes: a panel an operation, a colour a contender"
    import matplotlib.pyplot as plt
    rows = rows[rows.direction == "both"]
    panels = rows.set_index(rows.gigabytes_per_second*rows.microseconds*1e3).groupby("op")
    fig, axes = plt.subplots(1, len(panels), figsize=(6*len(panels), 4), squeeze=False, sharey=True)
    for axis, (op, cases) in zip(axes[0], panels, strict=True):
        cases.groupby("contender", sort=False).share_of_copy.plot(
            ax=axis, style=".", logx=True, legend=True, title=f"{op}, forward and backward",
            xlabel="bytes that must cross memory", ylabel="share of copy bandwidth")
        axis.axhline(1, color="grey", lw=.8)
    fig.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(fig)


@dataclass(kw_only=True)
class Settings:
    "Flags of the benchmark"
    out: str = flag("runs/kernels", "Folder for kernels.csv and kernels.png")
    device: str = flag("auto", "auto, cpu, cuda …")
    quick: bool = flag(False, "Width 8, 256 px, batch 8 only; always so on a CPU")
    width: int = flag(0, "This width only, instead of 8 and 64")
    size: int = flag(0, "This size only, instead of 256 and 512")
    budget: float = flag(.2, "Seconds for each measurement")


@program
def main(settings: Settings):
    "Time the fused operations against alternatives; nothing is timed where results differ"
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    device = choose_device(auto if settings.device == "auto" else settings.device)
    gpu, folder = device.type == "cuda", Path(settings.out)
    if gpu:
        if not HAS_TRITON: raise MissingPackage("timing on a GPU needs triton: pip install triton")
        import triton
        torch.cuda.set_device(device.index or 0)  # `do_bench` times the current device
        print(f"torch {torch.__version__}, {triton.__version__}, {torch.cuda.get_device_name()}")
    else:
        print(f"torch {torch.__version__}, no triton, CPU, {torch.get_num_threads()} threads\nNo GPU: the "
              "kernels cannot be timed here. What follows compares the plain torch paths on the CPU.")
    bandwidth = copy_bandwidth(device)
    print(f"copy bandwidth {bandwidth/1e9:.0f} GB/s\n")
    functions, found = {op: contenders(op, gpu, gpu) for op in OPERATIONS}, []
    for case in training_cases(settings.quick or not gpu, settings.width, settings.size):
        torch.compiler.reset()  # beyond eight shapes a function is compiled no more, but run eagerly
        found.append(pd.DataFrame(measure(case, functions[case.op], device, bandwidth, settings.budget)))
        print("\n".join(table(found[-1])), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    rows = pd.concat(found)
    rows.to_csv(folder/"kernels.csv", index=False)
    picture(rows, folder/"kernels.png")
    print(f"\n{folder/'kernels.csv'}\n{folder/'kernels.png'}")
