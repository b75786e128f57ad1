import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from fastinpaint.data.photos import (
    central_square,
    find_images,
    image_size,
    open_photo,
    square_box,
    to_rgb,
)


def _modes():
    "Pictures of one colour in many modes, with the RGB that each must become"
    grey16 = np.full((9, 9), 200 * 257, np.uint16)
    rgba = Image.new("RGBA", (9, 9), (200, 100, 0, 128))
    palette = Image.new("RGB", (9, 9), (10, 200, 30)).quantize()
    return {
        "rgb.png": (Image.new("RGB", (9, 9), (10, 200, 30)), (10, 200, 30)),
        "l.png": (Image.new("L", (9, 9), 77), (77,) * 3),
        "1.png": (Image.new("1", (9, 9), 1), (255,) * 3),
        "p.png": (palette, (10, 200, 30)),
        "p.gif": (palette, (10, 200, 30)),
        "rgba.png": (rgba, (227, 177, 127)),
        "la.png": (Image.new("LA", (9, 9), (0, 0)), (255,) * 3),
        "cmyk.tif": (Image.new("CMYK", (9, 9), (255, 0, 255, 0)), (0, 255, 0)),
        "cmyk.jpg": (Image.new("CMYK", (9, 9), (255, 0, 255, 0)), (0, 255, 0)),
        "16.png": (Image.fromarray(grey16), (200,) * 3),
        "16.tif": (Image.fromarray(grey16), (200,) * 3),
        "i.tif": (Image.fromarray(grey16.astype(np.int32)), (200,) * 3),
        "i32.tif": (Image.fromarray(np.full((9, 9), 2**30, np.int32)), (127,) * 3),
        "f1.tif": (Image.fromarray(np.full((9, 9), 0.4, np.float32)), (102,) * 3),
        "f255.tif": (Image.fromarray(np.full((9, 9), 102, np.float32)), (102,) * 3),
        "x.webp": (Image.new("RGB", (9, 9), (10, 200, 30)), (10, 200, 30)),
        "x.bmp": (Image.new("RGB", (9, 9), (10, 200, 30)), (10, 200, 30)),
    }


@pytest.mark.parametrize("name", _modes())
def test_any_mode_becomes_correct_rgb(tmp_path, name):
    im, expected = _modes()[name]
    im.save(tmp_path / name)
    rgb = np.asarray(open_photo(tmp_path / name)).astype(int)
    assert rgb.shape == (9, 9, 3)
    assert abs(rgb - expected).max() <= (4 if name.endswith(("jpg", "webp")) else 1)


def test_transparent_palettes_and_colours_turn_white(tmp_path):
    im = Image.new("P", (4, 4), 1)
    im.putpalette([0, 0, 0, 250, 0, 0])
    im.save(tmp_path / "p.png", transparency=1)
    assert (np.asarray(open_photo(tmp_path / "p.png")) == 255).all()


def test_sixteen_bit_colour(tmp_path):
    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    row = b"\0" + struct.pack(">3H", 10 * 257, 200 * 257, 30 * 257) * 4
    header = struct.pack(">2I5B", 4, 4, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * 4)), chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert (np.asarray(open_photo(tmp_path / "x.png")) == (10, 200, 30)).all()


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (9, 9), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(open_photo(tmp_path / "a.gif"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, kind, orientation, photo):
    upright = np.asarray(Image.open(photo(tmp_path / "upright.png"))).astype(int)
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
            5: lambda a: a.transpose(1, 0, 2),
            6: lambda a: np.rot90(a), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
            8: lambda a: np.rot90(a, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)).astype(np.uint8))
    stored.save(tmp_path / f"x.{kind}", exif=exif, **({"lossless": True} if kind == "webp" else {}))
    assert image_size(tmp_path / f"x.{kind}") == (48, 40)
    got = np.asarray(open_photo(tmp_path / f"x.{kind}")).astype(int)
    assert got.shape == upright.shape and abs(got - upright).mean() < 5


def test_large_jpegs_may_be_decoded_at_reduced_scale(tmp_path, photo):
    photo(tmp_path / "x.jpg", 1000, 800)
    assert open_photo(tmp_path / "x.jpg", min_side=150).size == (250, 200)
    assert open_photo(tmp_path / "x.jpg").size == (1000, 800)


def test_hidden_and_other_files_are_left_out(tmp_path, photo):
    photo(tmp_path / "b" / "1.JPG")
    for o in ("a.png", ".hidden.png", ".cache/x.png"): photo(tmp_path / o)
    (tmp_path / "notes.txt").write_text("no image")
    found = [os.path.relpath(o, tmp_path) for o in find_images(tmp_path)]
    assert found == ["a.png", os.path.join("b", "1.JPG")]


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (40, 40)])
def test_the_central_square_has_the_shorter_side(size):
    w, h = size
    places = np.stack((*np.meshgrid(np.arange(w), np.arange(h)), np.zeros((h, w))), -1)
    short = min(size)
    image = Image.fromarray(places.astype(np.uint8))
    square = central_square(image, short, Image.Resampling.NEAREST)
    left, top = (w - short) // 2, (h - short) // 2
    assert np.array_equal(np.asarray(square), places[top:top + short, left:left + short])


@pytest.mark.parametrize("x, y, box", [(0, 0, (0, 0, 20, 20)), (1, 0, (40, 0, 60, 20)),
                                       (0, 1, (0, 30, 20, 50)), (.5, 1, (20, 30, 40, 50))])
def test_a_square_moves_along_each_axis_by_itself(x, y, box):
    assert square_box((60, 50), 20, x, y) == box


def test_large_deep_grey_takes_little_memory():
    im = Image.fromarray(np.arange(1_000_000, dtype=np.int32).reshape(1000, 1000))
    tracemalloc.start()
    to_rgb(im)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000  # a float64 of each pixel, and little more
