"Every kernel compiles for GPUs that need not be there, and keeps its values in registers"
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", "3.3", reason="triton.compile took other arguments before 3.3")
KERNELS = {"forward_kernel", "finish_kernel", "backward_kernel", "merge_kernel", "nearest_kernel"}


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_kernels_compile_without_spilling(target):
    # in a process of its own: Triton either interprets or compiles
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compiled.py")
    run = subprocess.run([sys.executable, script, target], capture_output=True, text=True,
                         env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.splitlines()
    assert {line.split()[0].split(".")[1] for line in lines} == KERNELS
    assert [line for line in lines if not line.endswith("spills 0")] == []
