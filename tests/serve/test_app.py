import importlib
import json
import os
import shutil
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
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

pytest.importorskip("gradio", reason="the web page needs gradio: pip install 'fastinpaint[app]'")

# ruff: noqa: E402
import httpx
from gradio import processing_utils

from fastinpaint.core.errors import MissingPackage
from fastinpaint.core.limits import go_on
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.models.lama import lama
from fastinpaint.serve.app import launch, serving

SAMPLE = Path(__file__).parents[2]/"fastinpaint/data/sample/valid"
# (width, height) of a photograph, and where it is painted
ALICE, HOLE = (60, 44), (slice(10, 30), slice(20, 50))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return {"tiny": Inpainter(lama(width=2, blocks=1, autoencoder=None), device="cpu")}


@pytest.fixture(scope="module")
def page(tiny):
    with serving(tiny, port=free_port(), max_bytes=100_000, max_pixels=100_000) as page: yield page


class Visitor:
    "What the page in a browser says to the server"
    def __init__(self, page, name="visitor", address="127.0.0.1"):
        self.page, self.name = page, name
        from_address = httpx.HTTPTransport(local_address=address)
        self.http = httpx.Client(base_url=page.local_url, timeout=60, transport=from_address)

    def upload(self, data, name="photo.png"):
        reply = self.http.post("gradio_api/upload", files={"files": (name, data)})
        assert reply.status_code == 200, reply.text
        return self.file(reply.json()[0])

    def file(self, path):
        return {"path": path, "orig_name": "photo.png", "meta": {"_type": "gradio.FileData"}}

    def index(self, function): return next(i for i, f in self.page.fns.items() if f.name == function)

    def join(self, function, *data):
        "Asks for `function`, and does not wait for what it gives"
        body = dict(data=data, fn_index=self.index(function), session_hash=self.name, trigger_id=None,
                    event_data=None)
        return self.http.post("gradio_api/queue/join", json=body).raise_for_status().json()["event_id"]

    def call(self, function, *data):
        "The outputs of `function` of the page, or the message of its error"
        self.join(function, *data)
        with self.http.stream("GET", "gradio_api/queue/data", params=dict(session_hash=self.name)) as events:
            for line in events.iter_lines():
                event = json.loads(line.removeprefix("data: ")) if line else {}
                if event.get("msg") == "process_completed":
                    return event["output"].get("data") if event["success"] else str(event["output"]["error"])

    def fill(self, photo, strokes, model="tiny", dilate=0, refine=False, texture=True,
             fills=1):
        return self.call("fill", photo, dict(background=None, layers=[strokes], composite=None), model,
                         dilate, refine, texture, fills)

    def download(self, file): return self.http.get(f"gradio_api/file={file['path']}")


def png(pixels, path):
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


@pytest.fixture
def photo(tmp_path):
    "Pixels and PNG of a photograph, another for each seed"
    def make(seed=0):
        pixels = np.random.default_rng(seed).integers(0, 256, (*ALICE[::-1], 3), dtype=np.uint8)
        return pixels, png(pixels, tmp_path/"photo.png")
    return make


@pytest.fixture
def strokes(tmp_path):
    "What the editor sends: red where it is painted, transparent elsewhere"
    painted = np.zeros((*ALICE[::-1], 4), dtype=np.uint8)
    painted[HOLE] = 255, 0, 0, 150
    return png(painted, tmp_path/"layer.png")


def test_ten_visitors_at_once_get_each_their_own(page, photo, strokes, tmp_path):
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


def test_fills_to_choose_from(page, photo, strokes):
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
def test_files_of_every_kind_that_it_names_are_filled(page, photo, strokes, tmp_path, kind):
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


def test_a_turned_cmyk_photograph_comes_back_upright_and_lossless(page, strokes, tmp_path):
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


def test_opens_nothing_but_uploads(page, photo, strokes, monkeypatch):
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


def test_says_what_is_wrong(page, photo, strokes, tmp_path):
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


def test_refuses_what_is_too_large(page):
    visitor = Visitor(page)
    assert visitor.http.post("gradio_api/upload", files={"files": bytes(100_001)}).status_code == 413
    assert visitor.http.post("gradio_api/queue/join", content=bytes(2*2**20)).status_code == 413
    assert visitor.http.post("gradio_api/queue/join", content=iter([b"of unknown length"])).status_code == 413


class Slow:
    "An inpainter that fills nothing until it is told to stop; it counts those that run and that have ended"
    def __init__(self): self.begun, self.ended = threading.Semaphore(0), threading.Semaphore(0)

    def fill_file(self, *_, **__):
        self.begun.release()
        try:
            while True:
                go_on()
                time.sleep(.01)
        finally: self.ended.release()


@pytest.fixture
def busy(tiny):
    "Serves a page with a model that never ends"
    slow = Slow()
    with serving(tiny | {"slow": slow}, port=free_port(), max_refined=1000, seconds=3) as page:
        page.slow = slow
        yield page


def picture(visitor, photo, strokes, model="slow"):
    "Arguments of `fill` for the bytes of a photograph, which the visitor uploads"
    layers = dict(background=None, layers=[visitor.upload(strokes)], composite=None)
    return visitor.upload(photo), layers, model, 0, False, True, 1


def test_ten_visitors_are_served_while_one_abuses(busy, photo, strokes):
    abuser, photo = Visitor(busy, "abuser0"), photo()[1]
    asked = picture(abuser, photo, strokes)
    for i in range(80):
        abuser.name = f"abuser{i}"
        abuser.join("fill", *asked)
    assert busy.slow.begun.acquire(timeout=10)

    def visit(i):
        visitor = Visitor(busy, f"visitor{i}", f"127.0.0.{i + 2}")
        return visitor.call("fill", *picture(visitor, photo, strokes, "tiny"))
    with ThreadPoolExecutor(10) as pool: results = [*pool.map(visit, range(10))]
    assert not [o for o in results if not isinstance(o, list)]


def test_a_request_has_so_many_seconds_and_pixels(busy, photo, strokes):
    visitor = Visitor(busy)
    asked = picture(visitor, photo()[1], strokes)
    assert "It took more than 3 seconds" in visitor.call("fill", *asked)
    refined = *asked[:2], "tiny", 0, True, True, 1
    assert "more than 0.001 million pixels to be refined" in visitor.call("fill", *refined)
    assert isinstance(visitor.call("fill", *asked[:2], "tiny", 0, False, True, 1), list)


@pytest.mark.parametrize("how", ["cancels", "leaves"])
def test_what_nobody_waits_for_any_more_is_stopped(tiny, photo, strokes, how):
    slow = Slow()
    with serving({"slow": slow}, port=free_port(), seconds=600) as page:
        visitor = Visitor(page)
        event = visitor.join("fill", *picture(visitor, photo()[1], strokes))
        with visitor.http.stream("GET", "gradio_api/queue/data", params=dict(session_hash=visitor.name)):
            assert slow.begun.acquire(timeout=10)
            if how == "cancels":
                body = dict(session_hash=visitor.name, fn_index=visitor.index("fill"), event_id=event)
                assert Visitor(page).http.post("gradio_api/cancel", json=body).json()["success"]
                assert slow.ended.acquire(timeout=10)
        assert how == "cancels" or slow.ended.acquire(timeout=10)


def test_files_are_removed_after_use(tiny, photo, strokes):
    with serving(tiny, port=free_port(), keep=1) as page:
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
        deadline = time.monotonic() + 20
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
def test_ctrl_c_stops_it_and_leaves_nothing(stop, tmp_path, monkeypatch, capsys):
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


@pytest.fixture
def browser(tmp_path):
    "A headless chromium, with a few helpers"
    webdriver = pytest.importorskip("selenium.webdriver",
                                    reason="selenium drives the browser: pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
                 "disable-background-networking", "disable-component-update", "disable-sync",
                 f"user-data-dir={tmp_path/'profile'}", "window-size=1280,1043"):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chrome: yield helpers(chrome)


def helpers(chrome):
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    patience = WebDriverWait(chrome, 40, ignored_exceptions=[StaleElementReferenceException])

    def wait(found): return patience.until(lambda _: found())
    def shown(selector):
        return [e for e in chrome.find_elements("css selector", selector) if e.is_displayed()]
    def button(name):
        def named(): return [e for e in shown("button, a") if name in (e.text, e.get_attribute("aria-label"))]
        return wait(named)[0]
    def click(name): wait(lambda: button(name).is_enabled() and button(name)).click()

    def upload(path):
        wait(lambda: chrome.find_elements("css selector", "input[type=file]"))[0].send_keys(str(path))

    # fractions of the photograph, which stands `side` pixels wide and high in the editor's middle
    def paint(points, side=460):
        wait(lambda: button("Pan").is_enabled())  # the photograph is on the canvas
        canvas, moves = shown("canvas")[0], [(round((x - .5)*side), round((y - .5)*side)) for x, y in points]
        hand = ActionChains(chrome, duration=50)
        hand.move_to_element_with_offset(canvas, *moves[0]).click_and_hold()
        for (x0, y0), (x1, y1) in zip(moves, moves[1:], strict=False): hand.move_by_offset(x1 - x0, y1 - y0)
        hand.release().perform()
    return SimpleNamespace(chrome=chrome, wait=wait, shown=shown, click=click, upload=upload, paint=paint)


def asked(chrome):
    "The addresses that the page asked for"
    events = [json.loads(o["message"])["message"] for o in chrome.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
            and "127.0.0.1" in e["params"].get("documentURL", "")]


def test_paint_fill_and_download_in_a_browser(browser, tmp_path):
    source, bad = tmp_path/"cat.png", tmp_path/"text.png"
    Image.open(SAMPLE/"cat.jpg").save(source)
    bad.write_text("no photograph")
    with serving({"sample": Inpainter("sample", device="cpu")}, port=free_port()) as page:
        browser.chrome.get(page.local_url)
        browser.upload(bad)
        browser.wait(lambda: "cannot be read" in browser.chrome.find_element("css selector", "body").text)
        browser.upload(source)
        browser.paint([(.1, .2), (.3, .2)])
        browser.click("Clear canvas")  # back to the start
        browser.wait(lambda: not browser.shown("canvas"))
        browser.upload(source)
        browser.paint([(.04, .86), (.13, .85), (.23, .8), (.33, .88), (.45, .92), (.6, .96), (.9, .99)])
        browser.paint([(.7, .25), (.75, .3)])
        browser.click("Undo")
        browser.click("Fill")
        browser.wait(lambda: [e for e in browser.shown("#download") if e.is_enabled()])
        # both are loaded
        browser.wait(lambda: len({e.size["height"] for e in browser.shown("#compare img")}) == 1)
        browser.chrome.save_screenshot(os.environ.get("FASTINPAINT_SCREENSHOT", str(tmp_path/"app.png")))
        browser.click("Download, lossless")
        browser.wait((tmp_path/"cat-filled.png").exists)
        own = page.local_url, "data:", "blob:"
        strangers = [url for url in asked(browser.chrome) if not url.startswith(own)]
    assert not strangers
    before, after = (np.asarray(Image.open(o)).astype(int) for o in (source, tmp_path/"cat-filled.png"))
    assert after.shape == before.shape
    changed = (after != before).any(-1)
    assert .05 < changed.mean() < .35
    assert not changed[:150].any()  # far from the stroke that stayed, but not from the one undone
    assert changed[215:235, 20:60].mean() > .9
