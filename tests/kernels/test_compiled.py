"What launches run compiles for GPUs that need not be there, and uses their memory and registers well"
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("triton", "3.3", reason="triton.compile took other arguments before 3.3")
KERNELS = {"forward_kernel", "finish_kernel", "backward_kernel", "merge_kernel", "nearest_kernel",
           "spectrum_kernel", "image_kernel", "mix_kernel", "statistics_kernel", "convs_kernel",
           "pull_kernel", "push_kernel"}
REGISTERS, SHARED = 65536, {"sm_80": 164 << 10, "sm_90": 228 << 10}  # of a multiprocessor
RESERVED = 1 << 10  # shared memory of a block that the system takes
NARROW = {"nearest_kernel": .8,  # its half squares, 32 for a block, which a warp shares
          "pull_kernel": 1., "push_kernel": 1.}  # every other pixel, and neighbours
# products of split numbers keep both halves of the waves in registers, more than there are
SPILLED = {("image_kernel", "fp32 contiguous"): 160}
targets = pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
nvidia = pytest.mark.parametrize("target", SHARED)


@cache
def compiled(target):
    "What compiled.py prints, as dictionaries"
    # in a process of its own: Triton either interprets or compiles
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compiled.py")
    run = subprocess.run([sys.executable, script, target], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    return [json.loads(line) | dict(kernel=json.loads(line)["name"].split(".")[1])
            for line in run.stdout.splitlines()]


@targets
def test_every_kernel_compiles_in_both_layouts_with_no_or_little_local_memory(target):
    found = compiled(target)
    assert {one["kernel"] for one in found} == KERNELS
    assert {one["kind"] for one in found} == {f"{t} {layout}" for t in ("fp32", "fp16", "bf16")
                                              for layout in ("contiguous", "channels_last")}
    assert [one for one in found if one["spills"] > SPILLED.get((one["kernel"], one["kind"]), 0)] == []


@nvidia
def test_two_blocks_of_four_warps_share_a_multiprocessor(target):
    def fits(one):
        if one["constants"].get("BLOCK_H") == one["constants"].get("BLOCK_W") == "64":
            return one["threads"] == 256 and one["shared"] + RESERVED <= SHARED[target]  # one of eight warps
        return (2*one["registers"]*one["threads"] <= REGISTERS
                and 2*(one["shared"] + RESERVED) <= SHARED[target])
    assert [one for one in compiled(target) if not fits(one)] == []


@nvidia
def test_inner_loops_access_global_memory_by_16_bytes(target):
    def narrow(one):
        "Share of a thread's bytes that come in less than 16: of small weights a few"
        return sum(size for size in one["accesses"] if size < 16)/sum(one["accesses"])
    assert [one for one in compiled(target) if narrow(one) > NARROW.get(one["kernel"], 1/8)] == []
