"What tests of pretrained networks share: no network kept from another test, and nothing at hand"
import urllib.error

import pytest
import torch

from fastinpaint.core import download
from fastinpaint.models import pretrained


@pytest.fixture
def no_weights_kept():
    "Every test looks its weights up anew"
    cached = (pretrained.lpips_net, pretrained.inception_features, pretrained.efflite0,
              download._download)
    for f in cached: f.cache_clear()
    yield
    for f in cached: f.cache_clear()


@pytest.fixture
def bare(tmp_path, monkeypatch, no_weights_kept):
    "An empty hub cache, no packages and no network; lists the addresses that were tried"
    tried = []

    def no_network(request, **_):
        tried.append(request.full_url)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(pretrained, "package_file", lambda *_: None)
    monkeypatch.setattr(download.urllib.request, "urlopen", no_network)
    return tried
