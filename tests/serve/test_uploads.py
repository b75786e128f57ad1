import numpy as np
import pytest
from PIL import Image

gr = pytest.importorskip("gradio", reason="the web page needs gradio: pip install 'fastinpaint[app]'")

# ruff: noqa: E402
from fastinpaint.serve import uploads

MOST = 10_000


def saved(pixels, path):
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def hole():
    hole = np.zeros((20, 30), np.uint8)
    hole[5:15, 10:20] = 255
    return hole


@pytest.mark.parametrize("kind", ["png", "tif", "bmp", "gif", "webp"])
def test_a_mask_is_read_as_on_the_command_line(kind, hole, tmp_path):
    if kind == "webp": hole = np.dstack([hole*0 + 9]*3 + [hole])  # strokes on transparency, of any colour
    file = saved(hole, tmp_path/f"a.{kind}")
    painted = np.asarray(uploads.mask(file, MOST, (30, 20))) >= 128
    assert np.array_equal(painted, np.pad(np.ones((10, 10), bool), ((5, 5), (10, 10))))
    assert uploads.mask(file, MOST, (60, 40)).size == (60, 40)  # of a photograph's shape is enough


def test_what_is_wrong_with_a_mask_is_said(hole, tmp_path):
    def said(pixels, size=(30, 20), most=MOST):
        with pytest.raises(gr.Error) as told: uploads.mask(saved(pixels, tmp_path/"a.png"), most, size)
        return told.value.message
    assert "30x20 pixels; it needs the shape of the photograph, 20x30" in said(hole, (20, 30))
    assert "is no hole" in said(hole*0) and "is all hole" in said(hole*0 + 255)
    assert "more than 0.0001 million pixels" in said(hole, most=100)
    (tmp_path/"a.png").write_bytes(b"a text")
    with pytest.raises(gr.Error, match="a.png cannot be read"): uploads.mask(tmp_path/"a.png", MOST, (30, 20))
    whole = saved(hole, tmp_path/"b.bmp").read_bytes()
    (tmp_path/"b.bmp").write_bytes(whole[:-200])
    with pytest.raises(gr.Error, match="b.bmp cannot be read as a mask"):
        uploads.mask(tmp_path/"b.bmp", MOST, (30, 20))
    with pytest.warns(UserWarning, match="83% of the mask is hole"):  # a notice, on the page
        uploads.mask(saved(255 - hole, tmp_path/"c.png"), MOST, (30, 20))


def test_strokes_are_as_the_editor_has_them(hole, tmp_path):
    file = uploads.layer(Image.fromarray(hole), tmp_path)
    with Image.open(file) as im: assert im.mode == "RGBA" and im.getpixel((12, 8)) == (229, 72, 77, 153)
    assert np.array_equal(np.asarray(uploads.painted(file, (30, 20))), hole)
    assert not uploads.painted(None, (30, 20)).getbbox()
