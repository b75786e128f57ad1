"""Compiles every kernel for a GPU that need not be there, and prints `kernel target spills` a line.

Run on its own: where the interpreter is on, triton's functions cannot be compiled.
"""
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastinpaint.kernels import masked_l1_triton as l1
from fastinpaint.kernels import nearest_triton as nearest
from fastinpaint.kernels import zero_conv_triton as zero

TARGETS = {"sm_80": GPUTarget("cuda", 80, 32), "sm_90": GPUTarget("cuda", 90, 32),
           "gfx942": GPUTarget("hip", "gfx942", 64)}
TYPES = {"fp32": tl.float32, "fp16": tl.float16, "bf16": tl.bfloat16}
ALWAYS_FLOAT = {"partial", "loss", "upstream", "queries", "sources", "half"}
POINTERS = {"pred", "target", "mask", "x", "y", "m", "grad", "grad_m"}


def arguments(kernel, dtype, channels_last, **constants):
    "Signature, constants and alignment of a launch of `kernel` with tensors of `dtype`"
    signature, attributes = {}, {}
    unit = re.compile(r"._c|._k" if channels_last else r"._w")
    for i, name in enumerate(kernel.arg_names):
        if unit.fullmatch(name) and name not in ("w_c",): constants[name] = 1
        if name in constants: kind = "constexpr"
        elif name == "sign": kind = "*i8"
        elif name == "index": kind = "*i64"
        elif name in ALWAYS_FLOAT or (kernel.fn.__name__, name) in L1_WEIGHTS: kind = "*fp32"
        elif name in POINTERS or name == "weight": kind = f"*{dtype}"
        elif name in ("known", "missing", "scale"): kind = "fp32"
        else: kind = "i32"
        signature[name] = kind
        if kind.startswith("*") or re.fullmatch(r"._[bchk]|P", name) and kind == "i32":
            attributes[(i,)] = [["tt.divisibility", 16]]
    return signature, {(kernel.arg_names.index(k),): v for k, v in constants.items()}, attributes


L1_WEIGHTS = {("forward_kernel", "weight"), ("backward_kernel", "weight")}


def launches(hip):
    "Kernels with the constants of training: few and many channels, both layouts, all types"
    yield l1.finish_kernel, "fp32", False, dict(BLOCK=1024)
    for d in 4, 36, 64, 148:
        yield nearest.nearest_kernel, "fp32", False, dict(D=d, PRECISION=nearest.precision(hip),
                                                          **nearest.tiles(d))
    for dtype, last in product(TYPES, (False, True)):
        for c, s in (3, 1), (64, 8), (512, 8):
            blocks, _ = l1.tiles(8, c, 1024, last)
            yield l1.forward_kernel, dtype, last, dict(SY=s, SX=s, SX2=s, MASKED=True, SAVE=True,
                                                       FLAT=True, **blocks)
            yield l1.backward_kernel, dtype, last, dict(MASKED=True, FLAT=True, **blocks)
        for c in 16, 64, 128, 512:
            maths = dict(FLAT=True, PRECISION="tf32", OPERAND=TYPES[dtype])
            yield zero.merge_kernel, dtype, last, dict(ADD=True, **maths,
                                                       **zero.merge_blocks(c, c, 4096))
            wanted = dict(OF_M=c <= 64, OF_WEIGHT=True)
            yield zero.backward_kernel, dtype, last, dict(**wanted, **maths,
                                                          **zero.backward_blocks(c, c, 4096))


def spills(target, compiled):
    "Bytes of registers spilled to the stack or to local memory, as the assembler reports them"
    if target.backend == "hip":
        return sum(int(n) for n in re.findall(r"gpr_spill_count:\s*(\d+)", compiled.asm["amdgcn"]))
    cuobjdump = Path(triton.__file__).parent/"backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(compiled.asm["cubin"])
        f.flush()
        report = subprocess.run([cuobjdump, "--dump-resource-usage", f.name],
                                capture_output=True, text=True, check=True).stdout
    stack, local = re.search(r"STACK:(\d+).*LOCAL:(\d+)", report).groups()
    return int(stack) + int(local)


if __name__ == "__main__":
    target = TARGETS[sys.argv[1]]
    for kernel, dtype, last, constants in launches(target.backend == "hip"):
        signature, constexprs, attributes = arguments(kernel, dtype, last, **constants)
        compiled = triton.compile(ASTSource(kernel, signature, constexprs, attributes),
                                  target=target)
        name = f"{kernel.fn.__module__.rsplit('.')[-1]}.{kernel.fn.__name__}"
        print(name, dtype, "channels_last" if last else "contiguous", constants, "spills",
              spills(target, compiled), flush=True)
