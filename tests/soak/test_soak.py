"A short form of `make soak`: kills and failures at random, and the same bytes in the end"
import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).with_name("soak.py")


def test_killed_and_failing_work_ends_with_the_same_bytes(tmp_path):
    done = subprocess.run([sys.executable, SOAK, "1", "1"], cwd=tmp_path, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    lines = [line for line in done.stdout.splitlines() if ", killed" in line or ", failures" in line]
    lines = dict(line.split("  ", 1) for line in lines)
    assert len(lines) == 7 and all("1 kills" in text for name, text in lines.items() if "killed" in name)
    assert all("1 full" in text for name, text in lines.items() if "failures" in name)
