"The benchmark of filling, run as a user runs it"
import subprocess
import sys

from fastinpaint.tools import bench_fill


def test_a_side_is_measured_in_a_process_of_its_own():
    command = sys.executable, bench_fill.__file__, "--sides", "96", "--device", "cpu"
    run = subprocess.run(command, capture_output=True, text=True)
    settings, header, line = run.stdout.splitlines()
    assert "share 0.1, model sample, device cpu" in settings and header == bench_fill.HEADER, run.stderr
    side, seconds, per_pixel, mib, _ = map(float, line.split())
    assert side == 96 and seconds > 0 and mib >= 0 and abs(per_pixel*96**2/1e6 - seconds) < .01
