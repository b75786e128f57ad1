"Photographs on disk: whole, cut short, in a folder; in shards on a server that fails when it is told to"
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastinpaint.data import remote
from fastinpaint.data.shard_writer import write_shards


@pytest.fixture
def photo():
    "Saves a picture of four plain quarters, or of one colour, and returns its path"
    def save(fn, w=48, h=40, color=None, **kwargs):
        fn.parent.mkdir(parents=True, exist_ok=True)
        a = np.full((h, w, 3), color or 0, np.uint8)
        if color is None: a[:h//2, :w//2, 0] = a[h//2:, w//2:, 1] = a[:h//2, w//2:, 2] = 200
        Image.fromarray(a).save(fn, **kwargs)
        return fn
    return save


@pytest.fixture
def folder(tmp_path, photo):
    "Ten photographs, each of a colour of its own"
    for i in range(10): photo(tmp_path/"photos"/f"{i}.png", color=(20*i, 100, 250 - 20*i))
    return tmp_path/"photos"


@pytest.fixture
def truncated():
    "Saves a JPEG whose header is sound and whose second half is missing, and returns its path"
    def save(fn, w=400, h=400):
        pixels = np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(fn)
        fn.write_bytes(fn.read_bytes()[:fn.stat().st_size//2])
        return fn
    return save


class Faults(SimpleHTTPRequestHandler):
    "Serves ranges of files; a request for a name in `faults` meets the next of its faults, None is none"
    def do_GET(self):
        file = Path(self.translate_path(self.path))
        faults = self.server.faults.get(file.name)
        fault = None if not faults else faults if isinstance(faults, str) else faults.pop(0)
        self.server.asked.append(file.name)
        if fault == "500" or fault == "404" or not file.is_file(): return self.send_error(int(fault or 404))
        if fault == "stall": self.server.released.wait(20)
        data, first = file.read_bytes(), 0
        if self.server.ranges and (asked := self.headers.get("Range")):
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            data = data[first:last + 1]
        self.send_response(206 if self.server.ranges else 200)
        self.send_header("Content-Length", str(len(data)))
        if self.server.ranges:
            self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{file.stat().st_size}")
        self.end_headers()
        with suppress(ConnectionError): self.wfile.write(data[:len(data)//2] if fault == "short" else data)
        if fault == "short": self.close_connection = True

    def log_message(self, *_): pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server of the folder `served.root`, with `url`, `faults` (name → faults), `asked` (names).

    The cache is empty; who waits for the server has little patience."""
    root = tmp_path/"served"
    root.mkdir()
    monkeypatch.setenv("FASTINPAINT_CACHE", str(tmp_path/"cache"))
    monkeypatch.setattr(remote, "TIMEOUT", 1)
    monkeypatch.setattr(remote, "WAITS", (.02, .02))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Faults, directory=root)) as server:
        server.root, server.url = root, f"http://127.0.0.1:{server.server_port}"
        server.faults, server.asked, server.ranges, server.released = {}, [], True, threading.Event()
        threading.Thread(target=server.serve_forever, args=(.02,), daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture
def shards(served, photo):
    "Six shards of four photographs, 24 in all, each of a colour of its own, at the root of the server"
    for i in range(24): photo(served.root.parent/"photos"/f"{i:02}.png", color=(10*i, 100, 250 - 10*i))
    write_shards(served.root.parent/"photos", served.root, count=4)
    return served
