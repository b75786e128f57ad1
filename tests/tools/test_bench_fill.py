"The benchmark of filling measures each side in a process of its own"
import json

from fastinpaint.tools import bench_fill
from fastinpaint.tools.settings import BenchFillSettings


def test_a_side_is_measured_in_a_process_of_its_own(capsys, monkeypatch):
    # only this process sees the patch
    monkeypatch.setattr(bench_fill, "Inpainter", None)
    bench_fill.main(BenchFillSettings(sides="96", device="cpu"))
    settings, header, line = capsys.readouterr().out.splitlines()
    assert "share 0.1, model sample, device cpu" in settings and header == bench_fill.HEADER
    side, seconds, per_pixel, mib, _ = map(float, line.split())
    assert side == 96 and seconds > 0 and mib >= 0 and abs(per_pixel*96**2/1e6 - seconds) < .01


def test_alone_prints_seconds_and_memory_as_json(capsys):
    bench_fill.main(BenchFillSettings(alone=64, device="cpu"))
    seconds, mib = json.loads(capsys.readouterr().out)
    assert seconds > 0 and mib >= 0
