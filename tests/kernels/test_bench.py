import csv
from itertools import product

import pytest
import torch

from fastinpaint.kernels import bench

CPU = torch.device("cpu")
CASES = [bench.Case("masked_l1", (2, 3, 4, 5), torch.float32, 2),
         bench.Case("zero_conv_merge", (2, 3, 4, 5), torch.float32),
         bench.Case("nearest", (9, 7, 5), torch.float32),
         bench.Case("fourier_unit", (2, 3, 4, 5), torch.float32),
         bench.Case("ffc_convs", (2, 8, 4, 5), torch.float32),
         bench.Case("smooth_fill", (2, 3, 8, 8), torch.float32)]


def test_bytes_are_those_of_every_tensor_once():
    loss, merge, nearest, fourier, convs, fill = CASES
    assert loss.bytes("forward") == 2*120*4 + 2*80*4 and merge.bytes("forward") == 3*120*4
    assert merge.bytes("both") == merge.bytes("forward") + merge.bytes("backward")
    assert nearest.bytes("forward") == (9*5 + 7*5)*4 + 9*(4 + 8)
    assert convs.bytes("forward") == (320 + 120 + 320)*4 == convs.bytes("both")/3
    assert fill.bytes("forward") == 4*(2*(3 + 1) + 3)*2*64*4//3  # each size: twice what is given, a result
    assert fourier.bytes("forward") == 2*120*4 + 2*(2*2*3)*(4*3)*4 == fourier.bytes("both")/2


@pytest.mark.parametrize("op, shape", [("masked_l1", (8, 64, 32, 32)), ("fourier_unit", (8, 24, 32, 32)),
                                       ("ffc_convs", (8, 64, 32, 32)),
                                       ("nearest", (30000, 6000, 35)), ("zero_conv_merge", (8, 8, 256, 256))])
def test_a_kernel_is_expected_to_take_no_less_than_its_memory_and_more_in_fp32(op, shape):
    halves, whole = (bench.Case(op, shape, t, 8) for t in (torch.bfloat16, torch.float32))
    bandwidth = 3.4e12  # no H100 has more
    assert bandwidth*whole.expected("forward") > whole.bytes("forward")
    assert whole.expected("forward") >= halves.expected("forward") > 3e-6
    assert whole.expected("both") > whole.expected("forward")


@pytest.mark.parametrize("case, wrong", [*product(CASES, [lambda y: y*1.1]),  # the result
                                         *product([*CASES[:2], *CASES[3:5]],  # the gradient
                                                   [lambda y: y.detach() + 0*y])])
def test_what_computes_something_else_is_not_timed(case, wrong):
    right = bench.contenders(case.op, False, False)["eager"]
    bench.check(case, {"eager": right}, CPU)
    with pytest.raises(RuntimeError, match=f"{case.op}.*cheat is wrong by"):
        bench.check(case, {"eager": right, "cheat": lambda *t: wrong(right(*t))}, CPU)


def test_contenders_agree():
    for case in CASES:  # kernels through the interpreter
        bench.check(case, bench.contenders(case.op, True, False), CPU)


def test_a_long_run_can_be_cut_into_widths_and_sizes():
    parts = [[*map(str, bench.training_cases(False, w, s))] for w in (8, 64) for s in (256, 512)]
    assert sum(parts, []) and sorted(sum(parts, [])) == sorted(map(str, bench.training_cases(False)))
    assert [*map(str, bench.training_cases(True, 8, 256))] == [*map(str, bench.training_cases(True))]


def test_a_run_writes_its_table_and_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "training_cases", lambda *_: CASES)
    monkeypatch.setattr(bench, "COPIED", 1 << 16)
    bench.main(out=str(tmp_path), device="cpu", budget=0.)
    rows = list(csv.DictReader((tmp_path/"kernels.csv").open()))
    assert len(rows) == 3*(2 + 3 + 2 + 1) + 2 + 1 and all(float(r["microseconds"]) > 0 for r in rows)
    out = capsys.readouterr().out
    assert "No GPU" in out and out.count("best ") == 14  # a line for each case and direction
    assert (tmp_path/"kernels.png").stat().st_size > 5000


def test_a_gpu_is_timed_by_triton(monkeypatch):
    def do_bench(call, warmup, rep, return_mode):
        assert return_mode == "median" and warmup < rep == 200  # milliseconds
        return call()

    monkeypatch.setattr("triton.testing.do_bench", do_bench)
    assert bench.seconds(lambda: 7., torch.device("cuda"), .2) == .007
