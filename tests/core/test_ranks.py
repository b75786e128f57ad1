import os
import subprocess
import sys

import pytest

from fastinpaint.core import ranks

LAUNCHED = dict(RANK="3", WORLD_SIZE="8", LOCAL_RANK="1", LOCAL_WORLD_SIZE="2", MASTER_ADDR="10.0.0.1",
                MASTER_PORT="29500")


@pytest.fixture
def launched(monkeypatch):
    def set(**kwargs):
        for k, v in (LAUNCHED | kwargs).items(): monkeypatch.setenv(k, v)
    return set


def test_the_launchers_variables_say_which_process_this_is(launched):
    launched()
    assert (ranks.rank(), ranks.world(), ranks.local_rank(), ranks.local_world()) == (3, 8, 1, 2)
    assert not ranks.is_main() and not ranks.restarted()
    launched(RANK="0", TORCHELASTIC_RESTART_COUNT="1")
    assert ranks.is_main() and ranks.restarted()


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_without_all_of_them_a_process_is_alone(launched, monkeypatch, missing):
    launched(TORCHELASTIC_RESTART_COUNT="1")
    monkeypatch.delenv(missing)
    assert (ranks.rank(), ranks.world(), ranks.local_rank(), ranks.local_world()) == (0, 1, 0, 1)
    assert ranks.is_main() and not ranks.restarted()


def test_only_the_main_process_prints(launched, capsys):
    for rank in "0", "1":
        launched(RANK=rank)
        with ranks.main_speaks(): print(f"process {rank}")
    print("after")
    assert capsys.readouterr().out == "process 0\nafter\n"


def test_alone_nothing_of_torch_is_imported():
    code = "import sys, fastinpaint.core.ranks as r; r.world(); sys.exit('torch' in sys.modules)"
    assert not subprocess.run([sys.executable, "-c", code], env=os.environ).returncode
