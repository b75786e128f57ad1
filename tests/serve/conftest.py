"What tests of the page share: a page, its visitors, and a browser"
import json
import shutil
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from fastinpaint.core.limits import go_on
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.models.lama import lama

SAMPLE = Path(__file__).parents[2]/"fastinpaint/data/sample/valid"
# (width, height) of a photograph, and where it is painted
ALICE, HOLE = (60, 44), (slice(10, 30), slice(20, 50))


def a_free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return {"tiny": Inpainter(lama(width=2, blocks=1, autoencoder=None), device="cpu")}


@pytest.fixture(scope="module")
def page(tiny):
    from fastinpaint.serve.app import serving
    with serving(tiny, port=a_free_port(), max_bytes=100_000, max_pixels=100_000) as page: yield page


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

    def join(self, function, *data, event=None):
        "Asks for `function`, and does not wait for what it gives"
        body = dict(data=data, fn_index=self.index(function), session_hash=self.name, trigger_id=None,
                    event_data=event)
        return self.http.post("gradio_api/queue/join", json=body).raise_for_status().json()["event_id"]

    def call(self, function, *data, event=None):
        "The outputs of `function` of the page, or the message of its error"
        self.join(function, *data, event=event)
        with self.http.stream("GET", "gradio_api/queue/data", params=dict(session_hash=self.name)) as events:
            for line in events.iter_lines():
                event = json.loads(line.removeprefix("data: ")) if line else {}
                if event.get("msg") == "process_completed":
                    return event["output"].get("data") if event["success"] else str(event["output"]["error"])

    def picture(self, photo, strokes, model="slow"):
        "Arguments of `fill` for the bytes of a photograph, which are uploaded"
        return self.upload(photo), self.strokes(self.upload(strokes)), model, 0, False, True, 1

    def fill(self, photo, strokes, model="tiny", dilate=0, refine=False, texture=True,
             fills=1):
        return self.call("fill", photo, self.strokes(strokes), model, dilate, refine, texture, fills)

    def strokes(self, file): return dict(background=None, layers=[file], composite=None)

    def download(self, file): return self.http.get(f"gradio_api/file={file['path']}")


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


def png(pixels, path):
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def given(name, value): return pytest.fixture(lambda: value, name=name, scope="session")


given_visitor, given_port = given("Visitor", Visitor), given("free_port", a_free_port)
given_alice, given_hole = given("ALICE", ALICE), given("HOLE", HOLE)
given_sample, given_png, given_slow = given("SAMPLE", SAMPLE), given("png", png), given("Slow", Slow)


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


@pytest.fixture
def browser(tmp_path, request):
    "A headless chromium, with a few helpers; as a phone of the width that it is parametrised with"
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
    if phone := getattr(request, "param", None):
        metrics = dict(width=phone, height=844, pixelRatio=1, touch=True)
        options.add_experimental_option("mobileEmulation", dict(deviceMetrics=metrics))
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chrome: yield helpers(chrome)


def helpers(chrome):
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    patience = WebDriverWait(chrome, 120, ignored_exceptions=[StaleElementReferenceException])

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

    def press(key, *held):
        keys = ActionChains(chrome)
        for o in held: keys.key_down(o)
        keys.send_keys(key)
        for o in held: keys.key_up(o)
        keys.perform()

    def point(selector, x, y):
        "Clicks at a place that fractions of the height, from the middle, give"
        wait(lambda: shown(selector))
        place = (picture := shown(selector)[0]), *(round(o*picture.size["height"]) for o in (x, y))
        ActionChains(chrome).move_to_element_with_offset(*place).click().perform()
    return SimpleNamespace(chrome=chrome, wait=wait, shown=shown, button=button, click=click, upload=upload,
                           paint=paint, press=press, point=point)
