from pathlib import Path

import pytest

from fastinpaint.core.cache import cache_folder, cache_limit
from fastinpaint.core.errors import InputError


def test_the_cache_is_the_users_or_what_the_environment_names(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTINPAINT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path/"fastinpaint"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home()/".cache/fastinpaint"
    monkeypatch.setenv("FASTINPAINT_CACHE", "~/other")
    assert cache_folder() == Path.home()/"other"


def test_its_limit_is_in_gigabytes(monkeypatch):
    monkeypatch.setenv("FASTINPAINT_CACHE_GB", "1.5")
    assert cache_limit() == 1_500_000_000
    monkeypatch.setenv("FASTINPAINT_CACHE_GB", "much")
    with pytest.raises(InputError, match="cache_gb = much"): cache_limit()
