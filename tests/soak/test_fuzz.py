"Malformed files are answered within seconds and a gigabyte, and by the documented errors alone"
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinpaint.core.errors import InputError
from fastinpaint.models.schema import BOUNDS, checked

FUZZ = Path(__file__).with_name("fuzz.py")


@pytest.mark.skipif(not importlib.util.find_spec("gradio"), reason="the page needs gradio")
def test_malformed_files_are_answered(tmp_path):
    done = subprocess.run([sys.executable, FUZZ, "120"], cwd=tmp_path, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    counts = {tuple(line.split()[:2]): int(line.split()[2]) for line in done.stdout.splitlines()}
    assert sum(counts.values()) == 120 and len({kind for kind, _ in counts}) == 6


values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                      lambda o: st.lists(o) | st.dictionaries(st.text(), o), max_leaves=8)
known = {"model", "autoencoder", *(name for arguments in BOUNDS.values() for name in arguments)}
names = st.sampled_from(sorted(known)) | st.text()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(names, values))
def test_a_configuration_is_within_its_bounds_or_refused(config):
    try: kind, arguments = checked(config)
    except InputError: return
    assert all(value in BOUNDS[kind][name] for name, value in arguments.items())
