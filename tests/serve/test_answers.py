import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the web page needs gradio: pip install 'fastinpaint[app]'")

# ruff: noqa: E402
from fastinpaint.serve import objects
from fastinpaint.serve.app import serving
from fastinpaint.serve.views import BOX, BRUSH, CLICK, SIDES


@pytest.fixture
def visitor(page, Visitor): return Visitor(page)


@pytest.fixture
def received(visitor, tmp_path):
    "Pixels of a file that the page gave"
    def make(file):
        (tmp_path/"received").write_bytes(visitor.download(file).content)
        with Image.open(tmp_path/"received") as im: return np.asarray(im)
    return make


def test_an_example_is_filled(visitor, strokes, received):
    editor, _, own, *_ = visitor.call("example", 0)
    assert received(editor["background"]).shape == (256, 256, 3)
    assert isinstance(visitor.fill(own, visitor.upload(strokes)), list)
    for number in -1, 99, "/etc/passwd", 1.5: assert "no such example" in visitor.call("example", number)


def test_a_mask_becomes_strokes_that_can_be_undone(visitor, photo, strokes, received, png, tmp_path, ALICE):
    own, first = visitor.upload(photo()[1]), visitor.strokes(visitor.upload(strokes))
    mask = np.zeros(ALICE[::-1], np.uint8)
    mask[:9, :7] = 255
    file = visitor.upload(png(mask, tmp_path/"mask.png"))
    editor, _, tool = visitor.call("mask", own, first, None, file)
    assert tool == BRUSH and np.array_equal(received(editor["layers"][0])[..., 3] > 0, mask > 0)
    editor, _, _ = visitor.call("back", own, None)
    before = np.asarray(Image.open(tmp_path/"layer.png"))
    assert np.array_equal(received(editor["layers"][0])[..., 3] > 0, before[..., 3] > 0)
    assert "no mask or selection to undo" in visitor.call("back", own, None)
    large = visitor.upload(png(np.zeros((400, 300), np.uint8), tmp_path/"large.png"))
    assert "more than 0.1 million pixels" in visitor.call("mask", own, first, None, large)
    assert "Upload a photograph first" in visitor.call("mask", None, first, None, file)


def test_objects_are_added_to_what_is_painted(visitor, strokes, received, png, tmp_path, ALICE, HOLE):
    pytest.importorskip("cv2", reason="objects need OpenCV: pip install 'fastinpaint[demo]'")
    pixels = np.random.default_rng(0).integers(190, 220, (*ALICE[::-1], 3), dtype=np.uint8)
    pixels[4:16, 4:16] = 20, 30, 120
    own, painted = visitor.upload(png(pixels, tmp_path/"a.png")), visitor.strokes(visitor.upload(strokes))
    times = 1024/ALICE[0]  # what is clicked on is larger
    def click(tool, x, y):
        event = dict(index=[x*times, y*times], value=None)
        return visitor.call("pick", own, painted, None, tool, None, event=event)
    for tool in CLICK, BOX:
        if tool == BOX: assert click(tool, 1, 1)[0].get("__type__") == "update"  # the first corner alone
        editor, _, now, *_ = click(tool, *((10, 10) if tool == CLICK else (19, 19)))
        hole = received(editor["layers"][0])[..., 3] > 0
        assert now == BRUSH and hole[HOLE].all() and hole[5:15, 5:15].mean() > .9 and not hole[38:].any()
    for index in "corner", [1], [1, None], None:
        event = dict(index=index, value=None)
        assert "Click on the photograph" in visitor.call("pick", own, painted, None, CLICK, None, event=event)


def test_canvas_grows_by_a_hole(visitor, photo, received, ALICE):
    pixels, data = photo()
    (w, h), own, none = ALICE, visitor.upload(data), dict(background=None, layers=[], composite=None)
    editor, _, larger, *_ = visitor.call("extend", own, none, [SIDES[0], SIDES[3]], 50)
    assert np.array_equal(received(larger)[:h, w//2:], pixels)
    hole = received(editor["layers"][0])[..., 3] > 0
    assert hole.shape == (h + h//2, w + w//2) and hole.sum() == hole.size - w*h and not hole[:h, w//2:].any()
    _, result, *_ = visitor.fill(larger, editor["layers"][0])
    assert np.array_equal(received(result)[:h, w//2:], pixels)
    assert "Choose the sides" in visitor.call("extend", own, none, [], 50)
    for share in 51, -5, 1e9: assert isinstance(visitor.call("extend", own, none, [SIDES[0]], share), str)


def test_a_larger_canvas_is_within_the_budget(visitor, received, png, tmp_path):
    own = visitor.upload(png(np.zeros((300, 300, 3), np.uint8), tmp_path/"a.png"))
    none = dict(background=None, layers=[], composite=None)
    assert "would have more than 0.1 million pixels" in visitor.call("extend", own, none, [*SIDES], 25)


def test_it_goes_on_from_a_fill(visitor, page, Visitor, photo, strokes, received):
    own, painted = visitor.upload(photo()[1]), visitor.upload(strokes)
    first = received(visitor.fill(own, painted)[1])
    _, _, onward, *views, slider, download, _ = visitor.call("onward", None, 1)
    assert np.array_equal(received(onward), first) and slider is download is None
    assert "no mask or selection to undo" in visitor.call("back", onward, None)  # of the photograph before
    again = visitor.fill(onward, painted)[1]
    assert again["path"].endswith("/photo-filled.png")
    assert "press Fill again" in Visitor(page, "another").call("onward", None, 1)


def test_what_is_painted_is_a_file_whatever_else_the_page_shows(visitor, photo, strokes):
    own, painted = visitor.upload(photo()[1]), visitor.upload(strokes)
    event = dict(index=[1, 1], value=None)
    visitor.call("pick", own, visitor.strokes(painted), None, BOX, None, event=event)  # of the view alone
    assert isinstance(visitor.fill(own, painted), list)


def test_without_opencv_there_is_the_brush_alone(tiny, free_port, monkeypatch):
    monkeypatch.setattr(objects, "available", lambda: False)
    with serving(tiny, port=free_port()) as page:
        tool, = [o for o in page.blocks.values() if o.elem_id == "tool"]
        assert not tool.visible and "pick" not in [f.name for f in page.fns.values()]
