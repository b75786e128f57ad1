import socket
import threading

import pytest
import torch

from fastinpaint.core import download
from fastinpaint.core.download import fetch, unreachable
from fastinpaint.core.errors import Unreachable


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    "An empty hub cache; nothing has been tried before"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path/"hub"))
    download._download.cache_clear()
    return tmp_path/"hub/checkpoints"


@pytest.fixture
def silent(monkeypatch):
    "The address of a server that takes connections and says nothing"
    monkeypatch.setattr(download, "TIMEOUT", .2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/net-12345678.pth"


def test_a_silent_server_is_given_up(silent):
    assert unreachable(silent) == "no answer in 0.2 s"
    with pytest.raises(Unreachable, match="net-12345678.pth cannot be downloaded"): fetch(silent)


def test_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(download, "TIMEOUT", .2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(60) and [])
    assert unreachable("http://nowhere.invalid/") == "no answer in 0.2 s"
    release.set()


def test_who_is_offline_waits_once_for_each_address(monkeypatch):
    tried = []
    monkeypatch.setattr(download, "unreachable", lambda url: tried.append(url) or "no network")
    for url in ["http://a/net-12345678.pth", "http://b/other-12345678.pth"]*2:
        with pytest.raises(Unreachable, match="no network"): fetch(url)
    assert len(tried) == 2


def test_the_hash_is_checked_and_no_part_of_a_file_stays(tmp_path, hub):
    good, bad = tmp_path/"net-2cf24dba.pth", tmp_path/"net-12345678.pth"
    for file in good, bad: file.write_text("hello")  # its SHA-256 starts with 2cf24dba
    assert unreachable(good.as_uri()) is None and fetch(good.as_uri()).read_text() == "hello"
    with pytest.raises(Unreachable, match="SHA-256"): fetch(bad.as_uri())
    assert [p.name for p in hub.iterdir()] == ["net-2cf24dba.pth"]


def test_a_file_that_is_there_is_not_asked_for(hub, monkeypatch):
    monkeypatch.setattr(download, "unreachable", lambda url: pytest.fail("a server was asked"))
    hub.mkdir(parents=True)
    (hub/"net-12345678.pth").write_text("any")
    assert fetch("http://a/net-12345678.pth") == hub/"net-12345678.pth"
