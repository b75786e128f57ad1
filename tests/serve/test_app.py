import importlib
import os
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

pytest.importorskip("gradio", reason="the web page needs gradio: pip install 'fastinpaint[app]'")

# ruff: noqa: E402
import httpx
from gradio import processing_utils

from fastinpaint.core.errors import MissingPackage
from fastinpaint.serve.app import launch, serving


def test_ten_visitors_at_once_get_each_their_own(page, photo, strokes, tmp_path, Visitor, HOLE):
    photos = [photo(seed) for seed in range(10)]

    def visit(i):
        visitor = Visitor(page, f"visitor{i}")
        preview, *_ = visitor.call("load", uploaded := visitor.upload(photos[i][1]))
        assert visitor.download(preview["background"]).status_code == 200
        _, result, *_ = visitor.fill(uploaded, visitor.upload(strokes))
        (tmp_path/f"{i}.png").write_bytes(visitor.download(result).content)
        return np.asarray(Image.open(tmp_path/f"{i}.png"))

    with ThreadPoolExecutor(10) as pool: results = list(pool.map(visit, range(10)))
    for (pixels, _), result in zip(photos, results, strict=True):
        known = np.ones(pixels.shape[:2], dtype=bool)
        known[HOLE] = False
        assert np.array_equal(result[known], pixels[known])
        assert (result[~known] != pixels[~known]).any(-1).mean() > .9


def test_fills_to_choose_from(page, photo, strokes, Visitor):
    visitor = Visitor(page)
    own, hole = visitor.upload(photo()[1]), visitor.upload(strokes)
    _, first, numbers, *_ = visitor.fill(own, hole, fills=3)
    assert numbers["visible"] and [value for _, value in numbers["choices"]] == [1, 2, 3]
    _, third = visitor.call("show", own, None, 3)
    assert [Path(o["path"]).name for o in (first, third)] == ["photo-filled-1.png", "photo-filled-3.png"]
    assert visitor.download(first).content != visitor.download(third).content
    assert "press Fill again" in Visitor(page, "another").call("show", own, None, 1)
    os.unlink(third["path"])
    assert "press Fill again" in visitor.call("show", own, None, 3)
    _, plain, numbers, *_ = visitor.fill(own, hole, texture=False, fills=3)
    assert not numbers["visible"] and visitor.download(plain).content != visitor.download(first).content


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF"])
def test_files_of_every_kind_that_it_names_are_filled(page, photo, strokes, tmp_path, kind, Visitor, ALICE):
    image = Image.fromarray(photo()[0])
    more = dict(save_all=True, append_images=[image]) if kind == "MPO" else {}
    image.save(tmp_path/"a", kind, **more)
    visitor = Visitor(page)
    uploaded = visitor.upload((tmp_path/"a").read_bytes(), f"a.{kind.lower()}")
    preview, *_ = visitor.call("load", uploaded)
    assert visitor.download(preview["background"]).status_code == 200
    _, result, *_ = visitor.fill(uploaded, visitor.upload(strokes))
    (tmp_path/"out.png").write_bytes(visitor.download(result).content)
    assert Image.open(tmp_path/"out.png").size == ALICE


def test_a_turned_cmyk_photograph_comes_back_lossless(page, strokes, tmp_path, Visitor, ALICE, HOLE):
    turned = Image.linear_gradient("L").resize(ALICE[::-1]).convert("CMYK")
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path/"turned.jpg", exif=exif)
    visitor = Visitor(page)
    _, result, *_ = visitor.fill(visitor.upload((tmp_path/"turned.jpg").read_bytes(), "turned.jpg"),
                                 visitor.upload(strokes))
    assert Path(result["path"]).name == "turned-filled.tif"  # PNG holds no CMYK
    (tmp_path/"filled.tif").write_bytes(visitor.download(result).content)
    before = ImageOps.exif_transpose(Image.open(tmp_path/"turned.jpg"))
    after = Image.open(tmp_path/"filled.tif")
    assert after.mode == "CMYK" and after.size == before.size == ALICE
    changed = (np.asarray(after) != np.asarray(before)).any(-1)
    assert changed[HOLE].any()
    changed[HOLE] = False
    assert not changed.any()


def test_serves_nothing_but_what_it_made(page):
    http = httpx.Client(base_url=page.local_url)
    cache = Path(page.GRADIO_CACHE)
    for path in "/etc/passwd", str(Path(__file__)), f"{cache}/../{cache.name}/../../etc/passwd":
        assert http.get(f"gradio_api/file={path}").status_code == 403
    for path in ("gradio_api/file=http://127.0.0.1/", "gradio_api/proxy=http://127.0.0.1/", "monitoring",
                 "gradio_api/runs", "gradio_api/component_server", "gradio_api/run/fill",
                 "gradio_api/call/fill", "gradio_api/info", "docs"):
        assert http.get(path).status_code == http.post(path, json={}).status_code == 404
    home = http.get("/")
    assert home.headers["content-security-policy"].startswith("default-src 'self'")
    assert '"analytics_enabled":false' in home.text.replace(" ", "")


def test_opens_nothing_but_uploads(page, photo, strokes, monkeypatch, Visitor, SAMPLE):
    async def fetched(*args, **kwargs): raise AssertionError("an address that a visitor named was fetched")
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetched)
    visitor = Visitor(page)
    own, hole = visitor.upload(photo()[1]), visitor.upload(strokes)
    for named in "/etc/passwd", str(SAMPLE/"cat.jpg"), "https://example.com/cat.png":
        file = visitor.file(named)
        for inputs in ((file, hole), ({"path": named}, hole), (own, file), (own, hole, file),
                       (own, hole, "tiny", file)):
            assert "no other path or address" in visitor.fill(*inputs)
        assert "no other path or address" in visitor.call("load", file)
    assert "not in the list of choices" in visitor.fill(own, hole, "/etc/passwd")


def test_says_what_is_wrong(page, photo, strokes, tmp_path, Visitor, png):
    visitor = Visitor(page)
    pixels, data = photo()
    own = visitor.upload(data)
    empty = visitor.upload(png(np.zeros((8, 8, 4), dtype=np.uint8), tmp_path/"empty.png"))
    assert "Paint over" in visitor.fill(own, empty)
    assert "Paint over" in visitor.call("fill", own, dict(background=None, layers=[], composite=None), "tiny",
                                        0, False, True, 1)
    assert "Upload a photograph" in visitor.fill(None, empty)
    assert "cannot be read as a photograph" in visitor.call("load", visitor.upload(b"a text"))
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)), b"IDAT"
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    huge = b"".join([b"\x89PNG\r\n\x1a\n", *chunks])
    assert "more than 0.1 million pixels" in visitor.call("load", visitor.upload(huge))
    large = png(np.zeros((400, 300, 3), dtype=np.uint8), tmp_path/"large.png")
    assert "more than 0.1 million pixels" in visitor.fill(visitor.upload(large), empty)
    os.unlink(own["path"])
    assert "upload it again" in visitor.fill(own, visitor.upload(strokes))


def test_refuses_what_is_too_large(page, Visitor):
    visitor = Visitor(page)
    assert visitor.http.post("gradio_api/upload", files={"files": bytes(100_001)}).status_code == 413
    assert visitor.http.post("gradio_api/queue/join", content=bytes(2*2**20)).status_code == 413
    assert visitor.http.post("gradio_api/queue/join", content=iter([b"of unknown length"])).status_code == 413


@pytest.fixture
def busy(tiny, free_port, Slow):
    "Serves a page with a model that never ends"
    slow = Slow()
    with serving(tiny | {"slow": slow}, port=free_port(), max_refined=1000, seconds=3) as page:
        page.slow = slow
        yield page


def test_ten_visitors_are_served_while_one_abuses(busy, photo, strokes, Visitor):
    abuser, photo = Visitor(busy, "abuser0"), photo()[1]
    asked = abuser.picture(photo, strokes)
    for i in range(80):
        abuser.name = f"abuser{i}"
        abuser.join("fill", *asked)
    assert busy.slow.begun.acquire(timeout=10)

    def visit(i):
        visitor = Visitor(busy, f"visitor{i}", f"127.0.0.{i + 2}")
        return visitor.call("fill", *visitor.picture(photo, strokes, "tiny"))
    with ThreadPoolExecutor(10) as pool: results = [*pool.map(visit, range(10))]
    assert not [o for o in results if not isinstance(o, list)]


def test_a_request_has_so_many_seconds_and_pixels(busy, photo, strokes, Visitor):
    visitor = Visitor(busy)
    asked = visitor.picture(photo()[1], strokes)
    assert "It took more than 3 seconds" in visitor.call("fill", *asked)
    refined = *asked[:2], "tiny", 0, True, True, 1
    assert "more than 0.001 million pixels to be refined" in visitor.call("fill", *refined)
    assert isinstance(visitor.call("fill", *asked[:2], "tiny", 0, False, True, 1), list)


@pytest.mark.parametrize("how", ["cancels", "leaves"])
def test_what_nobody_waits_for_is_stopped(tiny, photo, strokes, how, Visitor, free_port, Slow):
    slow = Slow()
    with serving({"slow": slow}, port=free_port(), seconds=600) as page:
        visitor = Visitor(page)
        event = visitor.join("fill", *visitor.picture(photo()[1], strokes))
        with visitor.http.stream("GET", "gradio_api/queue/data", params=dict(session_hash=visitor.name)):
            assert slow.begun.acquire(timeout=10)
            if how == "cancels":
                body = dict(session_hash=visitor.name, fn_index=visitor.index("fill"), event_id=event)
                assert Visitor(page).http.post("gradio_api/cancel", json=body).json()["success"]
                assert slow.ended.acquire(timeout=10)
        assert how == "cancels" or slow.ended.acquire(timeout=10)


def test_files_are_removed_after_use(tiny, photo, strokes, Visitor, free_port):
    with serving(tiny, port=free_port(), keep=5) as page:
        visitor, folder = Visitor(page), Path(page.GRADIO_CACHE)
        assert folder.stat().st_mode & 0o077 == 0
        visitor.call("load", own := visitor.upload(photo()[1]))
        assert isinstance(visitor.fill(own, visitor.upload(strokes)), list)
        with socket.create_connection((page.server_name, page.server_port)) as breaks_off:
            breaks_off.sendall(b"POST /gradio_api/upload HTTP/1.1\r\n"
                               b"Host: localhost\r\nContent-Length: 9000\r\n"
                               b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
                               b"Content-Disposition: form-data; "
                               b'name="files"; filename="a.png"\r\n\r\n' + bytes(2000))
        deadline = time.monotonic() + 60
        while [o for o in folder.rglob("*") if o.is_file()] and time.monotonic() < deadline: time.sleep(.1)
        assert not [o for o in folder.rglob("*") if o.is_file()]
        visitor.upload(photo()[1])
    assert not folder.exists()


def test_a_port_in_use_is_named(tiny):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        with pytest.raises(OSError, match=f"port {s.getsockname()[1]} .*in use.*choose another"):
            launch(port=s.getsockname()[1])


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_it_and_leaves_nothing(stop, tmp_path, monkeypatch, capsys, free_port):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, port, met = signal.getsignal(signal.SIGTERM), free_port(), []

    def visit_and_stop():
        deadline = time.monotonic() + 30
        while "Ctrl-C" not in (out := capsys.readouterr().out) and time.monotonic() < deadline: time.sleep(.1)
        folders = list(tmp_path.glob("fastinpaint-*"))
        met.extend([httpx.get(f"http://127.0.0.1:{port}/").status_code, str(port) in out, len(folders)])
        os.kill(os.getpid(), stop)

    threading.Thread(target=visit_and_stop).start()
    try:
        with pytest.raises(KeyboardInterrupt): launch(port=port, device="cpu")  # a command then ends with 130
    finally: signal.signal(signal.SIGTERM, before)
    assert met == [200, True, 1] and not list(tmp_path.iterdir())


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "fastinpaint.serve.app")
    with pytest.raises(MissingPackage, match=r"pip install 'fastinpaint\[app\]'"):
        importlib.import_module("fastinpaint.serve.app")
