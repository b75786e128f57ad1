"What filling many costs"
import pytest

from fastinpaint.fill.outcomes import Outcome
from fastinpaint.tools import bench_many
from fastinpaint.tools.bench_many import in_rounds, main, overhead
from fastinpaint.tools.settings import BenchManySettings


def test_runs_are_timed_in_turn_after_one_to_warm_up():
    calls = []
    taken = in_rounds([lambda: calls.append("a"), lambda: calls.append("b")], 2)
    assert calls == [*"ababab"] and [*map(len, taken)] == [2, 2]


def test_overhead_is_what_is_no_filling(monkeypatch):
    clock = iter([0., 9., 10., 15., 20., 27.])  # five seconds for two of four jobs, seven for all
    monkeypatch.setattr(bench_many.time, "perf_counter", lambda: next(clock))
    def fill(jobs): return [Outcome(job, "b", seconds=.75) for job in jobs]
    assert overhead(fill, [*"abcd"]) == pytest.approx(1 - .75)


def test_it_prints_a_line_for_each_number_of_threads(capsys):
    main(BenchManySettings(size=32, number=2, rounds=1, files=0, threads="1", device="cpu"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["1", "off"], ["1", "on"]]
