import os
from multiprocessing import get_context
from pathlib import Path

import aiohttp
import pytest
from botocore.exceptions import EndpointConnectionError

from fastinpaint.core.errors import InputError, MissingPackage, Unreachable
from fastinpaint.data import remote
from fastinpaint.data.remote import Remote, filesystem, keep, keeping, kept, make_room, patient, piece, place
from fastinpaint.data.shard_index import read_shards


def test_an_address_is_used_like_a_path():
    assert place("s3://bucket/a/")/"train" == Remote("s3://bucket/a/train") and isinstance(place("a/b"), Path)


def test_an_address_holds_shards_or_not_or_is_out_of_reach(shards):
    assert Remote(shards.url).is_dir() and not (Remote(shards.url)/"train").is_dir()
    shards.faults["index.jsonl"] = "500"
    with pytest.raises(Unreachable, match="cannot be reached.*500"): Remote(shards.url).is_dir()


def test_unknown_protocols_and_missing_packages_are_told(monkeypatch):
    with pytest.raises(InputError, match="foo://a is no address"): filesystem("foo://a")
    import fsspec.core
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: __import__("s3fs_is_not_here"))
    with pytest.raises(MissingPackage, match=r"pip install 'fastinpaint\[cloud\]'"): filesystem("s3://a")


@pytest.mark.parametrize("fault", ["500", "404", "short", "stall"])
def test_what_fails_once_or_twice_is_asked_for_again(shards, fault):
    shards.faults["000000.tar"] = [fault, fault]
    name, size, sha256 = read_shards(Remote(shards.url)).shards[0]
    path = keep(f"{shards.url}/{name}", size, sha256)
    assert path.read_bytes() == (shards.root/name).read_bytes() and shards.asked.count(name) == 3


@pytest.mark.parametrize("fault, reason", [
    ("500", "500"), ("404", "it is not there"), ("short", "payload"), ("stall", "no answer in 1 s")])
def test_what_goes_on_failing_raises_and_leaves_nothing(shards, fault, reason):
    name, size, sha256 = read_shards(Remote(shards.url)).shards[1]
    shards.faults[name] = fault
    with keeping(sha256), pytest.raises(OSError, match=reason): keep(f"{shards.url}/{name}", size, sha256)
    assert not kept(sha256) and [o.suffix for o in (remote.cache_folder()/"shards").iterdir()] == [".lock"]


def test_a_file_that_is_shorter_or_another_than_its_index_says_is_refused(shards):
    name, size, sha256 = read_shards(Remote(shards.url)).shards[0]
    whole = (shards.root/name).read_bytes()
    for data, reason in (whole[:-600], f"cut short: {size - 600:,} bytes"), (whole[:-1] + b"x", "checksum"):
        (shards.root/name).write_bytes(data)
        with pytest.raises(OSError, match=reason): keep(f"{shards.url}/{name}", size, sha256)


@pytest.mark.parametrize("ranges", [True, False])
def test_files_come_in_pieces_from_servers_with_and_without_ranges(shards, monkeypatch, ranges):
    monkeypatch.setattr(remote, "PIECE", 1000)
    shards.ranges = ranges
    name, size, sha256 = read_shards(Remote(shards.url)).shards[0]
    keep(f"{shards.url}/{name}", size, sha256)
    assert shards.asked.count(name) == -(-size//1000)
    fs, path = filesystem(f"{shards.url}/{name}")
    assert piece(fs, path, 100, 300) == (shards.root/name).read_bytes()[100:300]


@pytest.mark.parametrize("error, raised, times", [
    (OSError("broken"), OSError, 3), (aiohttp.ServerDisconnectedError("broken"), OSError, 3),
    (EndpointConnectionError(endpoint_url="broken"), OSError, 3),
    (ArithmeticError("broken"), ArithmeticError, 1)])
def test_patience_ends_with_the_last_reason_and_is_not_for_bugs(monkeypatch, error, raised, times):
    monkeypatch.setattr(remote, "WAITS", (0, 0))
    tried = []

    def fail():
        tried.append(0)
        raise error
    with pytest.raises(raised, match="broken"): patient(fail, 1)
    assert len(tried) == times


def test_the_shards_used_longest_ago_make_room(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTINPAINT_CACHE", str(tmp_path))
    monkeypatch.setenv("FASTINPAINT_CACHE_GB", "35e-9")
    (tmp_path/"shards").mkdir()
    for i, name in enumerate("abc"):
        (tmp_path/f"shards/{name}.tar").write_bytes(bytes(10))
        os.utime(tmp_path/f"shards/{name}.tar", (i, i))
    assert kept("a") and not kept("d")
    make_room(5)
    assert len(list((tmp_path/"shards").iterdir())) == 3
    make_room(10)
    assert sorted(o.stem for o in (tmp_path/"shards").iterdir()) == ["a", "c"]
    make_room(100)  # one that is larger than the limit is kept alone
    assert not list((tmp_path/"shards").iterdir())


def fetch(url, k, barrier):
    found = read_shards(Remote(url))
    barrier.wait()
    found._local(k)


def test_several_processes_fetch_a_shard_once(shards):
    context = get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=fetch, args=(shards.url, 2, barrier)) for _ in range(4)]
    for o in processes: o.start()
    for o in processes: o.join(60)
    assert [o.exitcode for o in processes] == [0]*4 and shards.asked.count("000002.tar") == 1
