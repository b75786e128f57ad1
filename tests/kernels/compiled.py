"""Compiles what launches run, for a GPU that need not be there, and prints what became of it, a line each.

Run on its own: where the interpreter is on, triton's functions cannot be compiled. Launches are recorded from
the functions that make them, on tensors without memory, and specialised as triton does it.
"""
import json
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from unittest.mock import patch

import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastinpaint.kernels import ffc_triton as ffc
from fastinpaint.kernels import fourier_triton as fourier
from fastinpaint.kernels import masked_l1_triton as l1
from fastinpaint.kernels import nearest_triton as near
from fastinpaint.kernels import prefill_triton as prefill
from fastinpaint.kernels import spectrum_triton
from fastinpaint.kernels import zero_conv_triton as zero

TARGETS = {"sm_80": GPUTarget("cuda", 80, 32), "sm_90": GPUTarget("cuda", 90, 32),
           "gfx942": GPUTarget("hip", "gfx942", 64)}
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int8: "*i8",
            torch.int64: "*i64"}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
BYTES = {"b8": 1, "b16": 2, "b32": 4, "b64": 8}


class Recorder:
    "In the place of a kernel: notes how it is launched"
    def __init__(self, kernel, found): self.kernel, self.found = kernel, found
    def __getitem__(self, grid): return lambda *args, **rest: self.found.append((self.kernel, args, rest))


def recorded(operation, args):
    "`(kernel, arguments, constants and options)` of the launches that `operation` makes for `args`"
    found = []
    with ExitStack() as stack:
        for module in l1, zero, near, spectrum_triton, fourier, ffc, prefill:
            kernels = {k: Recorder(v, found) for k, v in vars(module).items() if k.endswith("_kernel")}
            stack.enter_context(patch.multiple(module, **kernels))
        operation._init_fn(*args)
    return found


def specialised(kernel, args, rest):
    "Source as triton specialises it (pointers and numbers divisible by 16, constants of 1), and options"
    constants = {k: v for k, v in rest.items() if k in kernel.arg_names}
    options = {k: v for k, v in rest.items() if k not in constants}
    signature, attributes, left = {}, {}, iter(args)
    for i, name in enumerate(kernel.arg_names):
        value = constants[name] if name in constants else next(left)
        if kernel.params[i].is_constexpr or type(value) is int and value == 1: constants[name] = value
        if name in constants: signature[name] = "constexpr"
        elif isinstance(value, torch.Tensor): signature[name] = POINTERS[value.dtype]
        else: signature[name] = "fp32" if isinstance(value, float) else "i32"
        aligned = isinstance(value, torch.Tensor) or type(value) is int and value % 16 == 0
        if aligned and name not in constants: attributes[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, {(kernel.arg_names.index(k),): v for k, v in constants.items()},
                     attributes), options


def image(b, c, h, w, dtype, layout):
    return torch.empty(b, c, h, w, dtype=TYPES[dtype], device="cuda", memory_format=LAYOUTS[layout])


def l1_launches(dtype, layout):
    for c, side, scale in (64, 32, 8), (512, 64, 8):
        x = image(8, c, side, side, dtype, layout)
        mask = torch.empty(8, 1, side*scale, side*scale, device="cuda")
        sign, weight = torch.empty_like(x, dtype=torch.int8), mask.new_empty(8, side, side)
        yield l1.masked_l1, (x, x, mask, .1, 1., True)
        yield l1.masked_l1_backward, (mask.sum(), sign, weight, .1, x.dtype)


def merge_launches(dtype, layout):
    for c in 8, 16, 64, 128:
        x, weight = image(8, c, 32, 32, dtype, layout), image(c, c, 1, 1, dtype, "contiguous")
        yield zero.zero_conv_merge, (x, x, weight)
        yield zero.zero_conv_merge_backward, (x, x, weight, True, True)


def nearest_launches():
    for d in 4, 36, 64, 148:
        points = torch.empty(30000, d, device="cuda")
        yield near.best_match, (points, points)


def fourier_launches(dtype):
    for side in 32, 64:
        x = image(8, 192, side, side, dtype, "contiguous")
        z, weight = x.new_empty(8, 384, side//2 + 1, side, dtype=torch.float32), x.new_empty(384, 384, 1, 1)
        vector = z.new_empty(384)
        yield fourier.forward, (x, weight, vector, vector, None, None, 1e-5)
        yield fourier.backward, (x, z, z, vector, vector, weight, vector, vector, 1e-5, True)


def ffc_launches(dtype):
    for c, side in (64, 32), (512, 64):
        x, half = image(8, c, side, side, dtype, "channels_last"), 3*c//8
        y = image(8, half, side, side, dtype, "contiguous")
        shapes = (9*c, c//4), (9*c//4, 3*c//4), (half, 3*c//4)
        packed = [x.new_empty(shape) for shape in shapes]
        for end in (None, False), (x.new_empty(c), True): yield ffc.ffc_convs, (x, y, *packed, *end)


def prefill_launches():
    for side in 256, 33:
        x = torch.empty(8, 3, side, side, device="cuda")
        yield prefill.smooth_fill, (x, x[:, :1], 1)


def launches():
    "A name and what makes the launch: few and many channels, both layouts, all types"
    for dtype, layout in product(TYPES, LAYOUTS):
        for find in l1_launches, merge_launches:
            for launch in find(dtype, layout): yield f"{dtype} {layout}", *launch
    for launch in nearest_launches(): yield "fp32 contiguous", *launch
    for launch in prefill_launches(): yield "fp32 contiguous", *launch
    for dtype in "fp32", "bf16":  # planes, whatever the layout
        for launch in fourier_launches(dtype): yield f"{dtype} contiguous", *launch
        for launch in ffc_launches(dtype): yield f"{dtype} channels_last", *launch


def loop_accesses(ptx):
    "Bytes of each access to global memory by a thread inside of the innermost loops, or anywhere without any"
    lines = ptx.splitlines()
    labels = {m[1]: i for i, line in enumerate(lines) if (m := re.match(r"(\$\w+):", line))}
    back = [(labels[m[1]], i) for i, line in enumerate(lines)
            if (m := re.search(r"bra(?:\.uni)?\s+(\$\w+);", line)) and labels[m[1]] < i]
    inner = [(a, b) for a, b in back if not any(a <= c and d < b or a < c and d <= b for c, d in back)]
    text = "\n".join("\n".join(lines[a:b]) for a, b in inner or [(0, len(lines))])
    plain = re.findall(r"(?:ld|st)\.global(?:\.\w+)*?(?:\.v(\d))?\.(b\d+)", text)
    copies = re.findall(r"cp\.async\.\w+\.shared\.global [^;]*?, (0x\w+|\d+)", text)
    return [int(n or 1)*BYTES[unit] for n, unit in plain] + [int(n, 0) for n in copies]


def assembled(compiled):
    "Registers a thread and bytes of stack and local memory, as NVIDIA's assembler reports them"
    cuobjdump = Path(triton.__file__).parent/"backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(compiled.asm["cubin"])
        f.flush()
        report = subprocess.run([cuobjdump, "--dump-resource-usage", f.name],
                                capture_output=True, text=True, check=True).stdout
    registers, stack, local = map(int, re.search(r"REG:(\d+) STACK:(\d+).*LOCAL:(\d+)", report).groups())
    return dict(registers=registers, spills=stack + local, accesses=loop_accesses(compiled.asm["ptx"]))


def figures(target, compiled):
    "What a test wants to know of a compiled kernel"
    if target.backend == "hip":
        return dict(spills=sum(map(int, re.findall(r"gpr_spill_count:\s*(\d+)", compiled.asm["amdgcn"]))))
    about = compiled.metadata
    return dict(threads=32*about.num_warps, shared=about.shared, **assembled(compiled))


def main(target):
    seen, torch.version.hip = set(), "6" if target.backend == "hip" else None
    with FakeTensorMode():
        found = [(kind, *one) for kind, *launch in launches() for one in recorded(*launch)]
    for kind, kernel, args, rest in found:
        source, options = specialised(kernel, args, rest)
        if (key := (kernel, source.hash(), str(options))) in seen: continue
        seen.add(key)
        name = f"{kernel.fn.__module__.rsplit('.')[-1]}.{kernel.fn.__name__}"
        compiled = triton.compile(source, target=target, options=options)
        about = dict(name=name, kind=kind, constants={k: str(v) for k, v in rest.items()})
        print(json.dumps(about | figures(target, compiled)), flush=True)


if __name__ == "__main__": main(TARGETS[sys.argv[1]])
