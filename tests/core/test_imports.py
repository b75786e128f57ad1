import subprocess
import sys

import pytest

LASTING = """
import gc, sys
from fastinpaint.core.imports import lasting
{before}
try:
    with lasting():
        import decimal
        print(gc.isenabled())
        raise ImportError
except ImportError: print(gc.isenabled(), gc.get_freeze_count() > 1000)
"""


@pytest.mark.parametrize("before, expected", [
    ("", "False True True"),
    ("gc.disable()", "False False False"),  # somebody does without it
    ("sys.modules['torch'] = None", "True True False"),  # a session under way, whose garbage is collected
])
def test_the_collector_rests_during_first_imports_and_leaves_them_alone(before, expected):
    command = [sys.executable, "-c", LASTING.format(before=before)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert " ".join(run.stdout.split()) == expected, run.stderr
