import json
import os

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the web page needs gradio: pip install 'fastinpaint[app]'")

# ruff: noqa: E402
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.serve.app import serving


class Keeps:
    "An inpainter that fills nothing, and keeps the hole that it is given"
    generates, hole = False, None

    def fill_file(self, photo, hole, out, n, **_):
        with Image.open(photo) as im: im.save(out)
        self.hole = np.asarray(hole) >= 128
        return [out]


@pytest.fixture
def kept(free_port):
    "Serves a page whose model keeps holes, as `page.model`"
    model = Keeps()
    with serving({"keeps": model}, port=free_port()) as page:
        page.model = model
        yield page


def example(browser, page):
    "Open the page, and its first example: the cat"
    browser.chrome.get(page.local_url)
    browser.wait(lambda: browser.shown("#examples button"))[0].click()
    browser.wait(lambda: browser.shown("canvas"))


def filled(browser, page):
    "The hole of what is filled now"
    page.model.hole = None
    browser.click("Fill")
    browser.wait(lambda: page.model.hole is not None)
    browser.wait(lambda: [e for e in browser.shown("#download") if e.is_enabled()])
    return page.model.hole


def asked(chrome):
    "The addresses that the page asked for"
    events = [json.loads(o["message"])["message"] for o in chrome.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
            and "127.0.0.1" in e["params"].get("documentURL", "")]


def test_paint_fill_and_download_in_a_browser(browser, tmp_path, free_port, SAMPLE):
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
        browser.wait(lambda: browser.shown("canvas"))
        assert browser.shown("#go") and not browser.shown("#stop, #clickable")
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
    assert changed[206:218, 20:58].mean() > .9


def test_undo_and_the_brush_by_key(browser, kept):
    from selenium.webdriver.common.keys import Keys
    example(browser, kept)
    def brush(): return int(browser.shown("#brush input[type=range]")[0].get_attribute("value"))
    for key, size in ("]", 20), ("]", 25), ("[", 20):
        browser.press(key)
        browser.wait(lambda size=size: brush() == size)
    browser.paint([(.2, .8), (.3, .8)])
    browser.paint([(.7, .25), (.75, .3)])
    browser.press("z", Keys.CONTROL)
    browser.wait(lambda: browser.button("Redo").is_enabled())
    hole = filled(browser, kept)
    assert hole[205, 64] and not hole[:128].any()
    assert abs(hole[:, 64].sum() - 41) < 4  # a brush of radius 20, not 16


def test_objects_are_selected_undone_and_the_canvas_grows(browser, kept):
    pytest.importorskip("cv2", reason="objects need OpenCV: pip install 'fastinpaint[demo]'")
    from selenium.webdriver.common.keys import Keys
    example(browser, kept)
    browser.paint([(.2, .8), (.3, .8)])
    browser.shown("#tool label")[1].click()
    browser.point("#clickable img", .25, 0)  # the cat
    browser.wait(lambda: browser.shown("canvas"))
    hole = filled(browser, kept)
    assert hole[205, 64] and hole[128, 192] and not hole[:30].any()
    browser.shown("#tool label")[2].click()
    browser.point("#clickable img", .48, .3)
    browser.wait(lambda: "Now the opposite corner" in browser.shown("#clickable")[0].text)
    browser.point("#clickable img", -.1, -.45)
    browser.wait(lambda: browser.shown("canvas"))
    def undone():
        browser.press("z", Keys.CONTROL)
        return not filled(browser, kept)[128, 192]
    browser.wait(undone)
    assert kept.model.hole[205, 64]
    browser.click("Continue from this")
    browser.wait(lambda: browser.shown("#empty"))
    browser.shown("button.label-wrap")[1].click()  # Extend the canvas
    browser.wait(lambda: browser.shown("#sides label"))[1].click()
    browser.click("Extend")
    browser.wait(lambda: filled(browser, kept).shape == (320, 256))
    assert kept.model.hole[:60].all() and not kept.model.hole[70:].any()


def test_stop_stops_it(browser, free_port, Slow):
    with serving({"slow": (slow := Slow())}, port=free_port(), seconds=600) as page:
        example(browser, page)
        browser.paint([(.2, .8), (.3, .8)])
        browser.click("Fill")
        assert slow.begun.acquire(timeout=60)
        browser.click("Stop")
        assert slow.ended.acquire(timeout=60)
        browser.wait(lambda: browser.button("Fill").is_displayed() and not browser.shown("#stop"))


@pytest.mark.parametrize("browser", [390], indirect=True)
def test_on_a_phone_button_and_result_are_within_reach(browser, kept):
    example(browser, kept)
    def rectangle(selector):
        return browser.chrome.execute_script(
            "let b = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [b.left, b.top, b.right, b.bottom]", selector)
    def within(selector):
        left, top, right, bottom = rectangle(selector)
        return left >= 0 and top >= 0 and right <= 390 and bottom <= 844
    browser.paint([(.2, .8), (.3, .8)], side=300)
    assert within("#tool") and within("#editor") and within("#actions") and within("#empty")
    filled(browser, kept)
    browser.wait(lambda: within("#compare") and within("#actions"))
    assert browser.chrome.execute_script("return document.documentElement.scrollWidth") == 390
