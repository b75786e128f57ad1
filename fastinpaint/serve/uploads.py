"What visitors send, read with care: photographs, strokes, masks"
import math
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from PIL import Image, ImageOps

from ..core.errors import InputError
from ..core.limits import Stopped
from ..data.masks import MOSTLY, hole_of
from ..data.photos import UNREADABLE, open_photo
from .doors import error, notice

READERS = "PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"  # of Pillow's, offered to strangers; JPEG's reads MPO
PREVIEW = 2048  # longest side in pixels of what the browser shows; strokes have its scale
LEAST = 1024    # and at least of what is clicked on: gradio enlarges no picture there
PAINT = "#e5484d", .6  # colour and opacity of strokes


def check(photo, max_pixels, why=""):
    "The mode of `photo`; `gr.Error` unless it is a file, a photograph, and of at most `max_pixels`"
    name, pixels = Path(photo).name, math.inf
    try:
        with Image.open(photo, formats=READERS) as im: mode, pixels = im.mode, im.width*im.height
    except FileNotFoundError as e:
        raise error("This photograph has been removed from the server; upload it again.") from e
    except Image.DecompressionBombError: pass  # too many pixels
    except UNREADABLE as e: raise unreadable(photo) from e
    if pixels > max_pixels:
        raise error(f"{name} has more than {max_pixels/1e6:g} million pixels{why}; make it smaller first.")
    return mode


def unreadable(photo, what="a photograph"):
    return error(f"{Path(photo).name} cannot be read as {what}; whole {', '.join(READERS)} can.")


@contextmanager
def mendable(photo):
    "What goes wrong with the file `photo` becomes `gr.Error`, without the folder that it is in"
    try: yield
    except Stopped: raise
    except (InputError, OSError) as e: raise error(str(e).replace(f"{Path(photo).parent}/", "")) from e


def preview(photo):
    "The photograph, small enough for a browser; `gr.Error` where its pixels cannot be read"
    try: im = open_photo(photo)
    except UNREADABLE as e: raise unreadable(photo) from e
    im.thumbnail((PREVIEW, PREVIEW))
    return im


def preview_file(photo):
    "A JPEG of `preview`, which is made once"
    file = Path(f"{photo}.preview.jpg")
    if not file.exists(): preview(photo).save(file, quality=92)
    os.utime(file)  # counts as use
    return str(file)


def enlargement(size):
    "How many times larger than its preview of `size` a photograph is where it is clicked on"
    return max(1, LEAST/max(size))


def clickable_file(photo):
    "As `preview_file`, of `LEAST` pixels"
    with Image.open(seen := preview_file(photo)) as im:
        if (times := enlargement(im.size)) == 1: return seen
        im.resize([round(times*n) for n in im.size]).save(file := f"{photo}.clickable.jpg", quality=92)
    return file


def painted(strokes, size):
    "Greyscale image of `size`, white where the PNG `strokes` (a file, or None) has paint"
    try:
        with Image.open(strokes or "", formats=["PNG"]) as im:
            if max(im.size) > PREVIEW: raise ValueError(f"strokes beyond {PREVIEW} pixels")
            paint = im.convert("RGBA").getchannel("A").point(lambda a: 255*(a > 0))
    except UNREADABLE: paint = Image.new("L", (1, 1))
    if paint.getextrema()[0]:
        raise error("Leave a part of the photograph unpainted, which the fill can continue.")
    return paint.resize(size, Image.Resampling.BILINEAR)


def hole(strokes, size):
    "As `painted`; `gr.Error` where nothing is"
    if (paint := painted(strokes, size)).getbbox(): return paint
    raise error("Paint over what should go, and press Fill.")


def mask(file, max_pixels, size):
    """Of an uploaded mask of a photograph, white where it has its hole, in the `size` of its preview.

    Raises `gr.Error` for what is no picture, has another shape, or no hole, or nothing else."""
    check(file, max_pixels)
    try:
        with Image.open(file, formats=READERS) as im: found = hole_of(ImageOps.exif_transpose(im))
    except UNREADABLE as e: raise unreadable(file, "a mask") from e
    (h, w), share = found.shape, found.mean()
    if abs(w*size[1] - h*size[0]) > max(w, h, *size):
        raise error(f"The mask is {w}x{h} pixels; it needs the shape of the photograph, {size[0]}x{size[1]}.")
    if share in (0, 1): raise error(f"The mask is {'all' if share else 'no'} hole: white is hole.")
    if share > MOSTLY: notice(f"{share:.0%} of the mask is hole: white is hole, black stays.")
    return Image.fromarray(found).convert("L").resize(size, Image.Resampling.BILINEAR)


def layer(paint, folder):
    "A PNG of strokes as the editor has them, in a new folder in `folder`, where `paint` is white"
    paint = paint.point(lambda grey: round(255*PAINT[1])*(grey >= 128))
    image = Image.new("RGBA", paint.size, PAINT[0])
    image.putalpha(paint)
    image.save(file := Path(mkdtemp(dir=folder), "strokes.png"))
    return str(file)
