"The benchmark measures what it says it measures"
import re

import pytest
import torch

from fastinpaint.tools.bench_speed import main, naive, run_times
from fastinpaint.tools.settings import BenchSpeedSettings


def test_every_run_but_the_warm_up_is_timed_in_turn():
    order = []
    runs = {name: lambda masked, mask, name=name: order.append(name) for name in ("a", "b")}
    times = run_times(runs, torch.zeros(1), torch.zeros(1), rounds=3)
    assert order == ["a", "b"]*4 and all(len(t) == 3 and min(t) > 0 for t in times.values())


def test_the_naive_run_calls_every_batchnorm(tiny_lama):
    net, calls = tiny_lama(control="mask").eval(), []
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)][:-1]
    for m in norms: m.register_forward_hook(lambda m, *_: calls.append(m))
    naive(net)(torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16))
    called = [any(m is c for c in calls)
              for m in net.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(called) == 4 and all(called)


@pytest.mark.parametrize("width", [8, 2])
def test_every_line_has_a_ratio_and_a_difference_below_a_thousandth(capsys, width):
    main(BenchSpeedSettings(width=width, size=32, blocks=1, rounds=2, device="cpu", threads=1))
    first, *lines = capsys.readouterr().out.strip().splitlines()
    assert f"width {width}, 32 px" in first and [line.split()[0] for line in lines] == ["naive", "faster"]
    assert all(float(re.search(r"largest difference (\S+) of", line)[1]) < 1e-3 for line in lines)
    assert lines[0].split(" times as fast")[0].endswith("1.00")


def test_ffcs_in_one_launch_fill_the_same(capsys):
    main(BenchSpeedSettings(width=2, size=32, blocks=1, rounds=1, device="cpu", threads=1, convs=True))
    *_, line = capsys.readouterr().out.strip().splitlines()
    assert line.startswith("one launch") and float(re.search(r"difference (\S+) of", line)[1]) < 1e-3
