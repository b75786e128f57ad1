"Photographs as they are stored: in their own mode and depth, with EXIF and profile"
import io
import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..core.errors import InputError, MissingFile
from ..core.files import replacing
from .deep_colour import deep_pixels, png_bytes, tiff_bytes
from .formats import NEEDED, WRITABLE, check_quality, found_in, writing
from .photos import UNREADABLE
from .shard_index import file_at

MODES = "L", "LA", "RGB", "RGBA", "CMYK"
# other tags of a TIFF's first directory are about how its pixels are stored: they are not copied
DESCRIPTIVE = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, *(ExifTags.Base[name] for name in (
    "ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "HostComputer",
    "Copyright", "XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"))}


@dataclass
class Picture:
    "A photograph the right way up"
    pixels: np.ndarray  # `[H, W, C]`, uint8 or uint16
    mode: str  # of `MODES`
    info: dict = field(default_factory=dict)  # written with them: `exif`, and what `found_in` finds

    @property
    def rgb(self):
        "Colours without alpha, `[H, W, 3]` of the same depth; a view if possible"
        if self.mode == "CMYK": return np.asarray(self.image.convert("RGB"))
        if self.mode in ("L", "LA"): return np.broadcast_to(self.pixels[..., :1], (*self.pixels.shape[:2], 3))
        return self.pixels[..., :3]

    def with_colours(self, rgb, where):
        "The picture with colours of `rgb` `[H, W, 3]` where `where` `[H, W]`; keeps alpha"
        pixels, colours = self.pixels.copy(), rgb[where]
        if self.mode == "CMYK": pixels[where] = inks(colours, self.rgb[~where], self.pixels[~where][:, 3])
        elif self.mode in ("L", "LA"):
            pixels[where, 0] = np.rint(colours @ np.array([.299, .587, .114], np.float32))
        else: pixels[..., :3][where] = colours
        return replace(self, pixels=pixels)

    @property
    def image(self):
        "The `PIL.Image`; the array `[H, W, C]` of 16-bit colours, which Pillow cannot hold"
        if self._deep_colour: return self.pixels
        mode = "I;16" if self.pixels.itemsize == 2 else self.mode
        data = self.pixels.astype(self.pixels.dtype.newbyteorder("<"), copy=False).tobytes()
        image = Image.frombytes(mode, self.pixels.shape[1::-1], data)
        image.info |= {k: v for k, v in self.info.items() if k not in ("jpeg", "text")}
        return image

    @property
    def _deep_colour(self): return self.pixels.dtype == np.uint16 and self.mode != "L"

    def extended(self, left, top, right, bottom):
        "The picture with so many more pixels on each side, opaque, of the colours at its edges"
        pixels = np.pad(self.pixels, ((top, bottom), (left, right), (0, 0)), mode="edge")
        if self.mode in ("LA", "RGBA"):
            inside = np.zeros(pixels.shape[:2], bool)
            inside[top:top + self.pixels.shape[0], left:left + self.pixels.shape[1]] = True
            pixels[~inside, -1] = np.iinfo(pixels.dtype).max
        return replace(self, pixels=pixels)

    def save(self, path, quality=None):
        """Write to `path`, whole or not at all; InputError where its format, OSError where the disk cannot.

        `quality`, 1 to 100, is that of a JPEG, AVIF or HEIC; a JPEG's own is kept, else it is 95."""
        data = self.encode(Path(path).suffix.lower(), quality)
        with replacing(path) as f: f.write(data)

    def check_fits(self, suffix, quality=None):
        "Raises InputError where files with `suffix` cannot hold the picture, or not with `quality`"
        fitting = [s for s, modes in WRITABLE.items() if self.mode in modes[self.pixels.itemsize - 1].split()]
        if suffix not in fitting:
            kind = f"{8*self.pixels.itemsize}-bit {self.mode}"
            raise InputError(f"a file that ends in {suffix!r} cannot hold this photograph "
                             f"({kind}); name one that ends in {', '.join(fitting)}")
        check_quality(suffix, quality)

    def encode(self, suffix, quality=None):
        "The bytes of a file with `suffix`; raises what `check_fits` raises"
        self.check_fits(suffix, quality)
        if suffix in (".tif", ".tiff"): return tiff_bytes(self.pixels, self.mode, self.info)
        if self._deep_colour: return png_bytes(self.pixels, self.info)
        out = io.BytesIO()  # on a full disk Pillow's encoders would lose the reason
        kind = Image.registered_extensions()[suffix]
        self.image.save(out, kind, **writing(suffix, self.info, quality))
        return out.getvalue()


def inks(rgb, known, black):
    """CMYK `[N, 4]` of the colours `rgb` `[N, 3]`, with as much black ink as the photograph has itself.

    That has `black` `[M]` in the colours `known` `[M, 3]`: of equally dark lightest channels, the mean."""
    most = 255 - known.max(-1)  # black ink that a colour can take
    count = np.bincount(most, minlength=256)
    levels = np.flatnonzero(count)
    curve = np.interp(np.arange(256), levels, np.bincount(most, black, 256)[levels]/count[levels])
    most = 255 - rgb.max(-1)
    black = np.minimum(np.rint(curve[most]).astype(np.uint8), most)
    white = np.maximum(255. - black[:, None], 1)  # what the paper and this black leave of light
    return np.hstack([np.rint(255 - 255.*rgb/white).astype(np.uint8), black[:, None]])


def open_picture(source):
    """The `Picture` of a path, PIL image, or array uint8 or uint16 `[H, W]`, `[H, W, 1|3|4]`.

    `MODES` stay as they are, with 8 or (not CMYK) 16 bits; 1 bit becomes L, all else RGB or RGBA. The EXIF
    turn is applied and dropped. A path may lead into a shard (`file_at`). Raises MissingFile; InputError for
    no image, a damaged, animated or huge one."""
    if isinstance(source, np.ndarray): return _of_array(source)
    if isinstance(source, Image.Image): return _of_image(ImageOps.exif_transpose(source), source.format)
    check_source(source, "an image")
    with reading(source), Image.open(file := file_at(source)) as im:
        # a phone's has a preview, or more pictures of a burst
        frames = getattr(im, "n_frames", 1) if im.format not in ("MPO", "HEIF") else 1
        if frames == 1: return _of_image(im, im.format, deep_pixels(im, file))
    raise InputError(f"{source} has {frames} frames; a photograph has one: "
                     "save the one to fill as a file of its own")


def check_source(source, what):
    "Raises InputError where `source` is nothing that Pillow opens; `what` it should be, with its article"
    if isinstance(source, str | os.PathLike) or hasattr(source, "read"): return
    raise InputError(f"{what} is a path, a PIL image or an array, not {type(source).__name__}"
                     + "; of a tensor [C, H, W] take its numpy() in [H, W, C]"*(hasattr(source, "numpy")))


@contextmanager
def reading(path):
    "What a reader raises over the file `path` becomes MissingFile or InputError, naming it"
    try: yield
    except FileNotFoundError as e: raise MissingFile(f"no such file: {Path(path).absolute()}") from e
    except Image.DecompressionBombError as e:
        advice = "Shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        raise InputError(f"{path} is too large: {e} {advice}") from e
    except UNREADABLE as e:
        needed = NEEDED.get(Path(str(path)).suffix.lower()) if isinstance(e, UnidentifiedImageError) else None
        how = f"; such a file takes {needed}" if needed else ""
        raise InputError(f"{path} cannot be read as an image: {e}{how}") from e


def _of_array(array):
    pixels, modes = array[..., None] if array.ndim == 2 else array, {1: "L", 3: "RGB", 4: "RGBA"}
    if array.dtype not in (np.uint8, np.uint16) or pixels.ndim != 3 or pixels.shape[2] not in modes:
        raise InputError("an image array is uint8 or uint16 [H, W] or [H, W, 3 or 4], "
                         f"got {array.dtype} {list(array.shape)}")
    return Picture(pixels, modes[pixels.shape[2]])


def _of_image(im, kind, pixels=None):
    "The `Picture` of an image from a file of format `kind`; `pixels` where Pillow holds only 8 of 16 bits"
    ImageOps.exif_transpose(im, in_place=True)  # also loads it
    info, exif = found_in(im, kind), im.getexif()
    if kind == "TIFF":
        for tag in exif.keys() - DESCRIPTIVE: del exif[tag]
    if exif: info["exif"] = exif.tobytes()
    if pixels is not None: mode = {2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    elif im.mode[0] in "IF":
        mode, pixels = "L", np.asarray(im)
        if im.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
            raise InputError("its pixels are 32-bit numbers; convert it to 8 or 16 bits")
        pixels = pixels.astype(np.uint16)
    else: mode, pixels = _mode(im), np.asarray(im.convert(_mode(im)))
    if info.get("icc_profile", b"")[16:20] == b"Lab ": del info["icc_profile"]  # the pixels are RGB by now
    return Picture(pixels.reshape(im.height, im.width, -1), mode, info)


def _mode(im):
    if im.mode in MODES and "transparency" not in im.info: return im.mode
    if im.has_transparency_data: return "LA" if im.mode in ("L", "1") else "RGBA"
    return "L" if im.mode == "1" else "RGB"
