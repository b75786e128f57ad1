"What Pillow cannot do: files of 16-bit colours, compressed TIFFs with EXIF"
import io
import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import putchunk

from .formats import png_texts


def deep_pixels(im, path):
    "uint16 `[H, W, C]` of an opened file of 16-bit colours, None of any other; raises ValueError"
    # Pillow's decoders take one byte of two, named by the tiles' raw mode: the file is read twice
    raw = [t.args if isinstance(t.args, str) else t.args[0] for t in im.tile if t.args]
    raw = [mode for mode in raw if isinstance(mode, str)]  # a GIF's say other things
    if im.format == "TIFF": depth = max(im.tag_v2.get(258, (8,)))
    else: depth = 16 if any("16" in mode for mode in raw) else 8
    if depth <= 8 or im.mode[0] in "IF": return None
    if im.mode not in ("RGB", "RGBA") or not all("16" in mode for mode in raw):
        raise ValueError(f"its {depth}-bit {im.mode} pixels are stored in a way that is not read "
                         "here; save it as 16-bit RGB with interleaved channels, or with 8 bits")
    if raw == ["LA;16B"]:  # four bytes a pixel, like RGBA
        pairs = _decoded(path, {"LA;16B": "RGBA"}).astype(np.uint16)
        return pairs[..., ::2] << 8 | pairs[..., 1::2]
    big = "BN" if sys.byteorder == "big" else "B"
    low = {m: m[:-1] + ("L" if m[-1] in big else "B") for m in raw}
    return _decoded(path, {}).astype(np.uint16) << 8 | _decoded(path, low)


def _decoded(path, raw_modes):
    "uint8 `[H, W, C]` of a file, upright, with some raw modes of its tiles replaced by others"
    with Image.open(path) as im:
        for i, tile in enumerate(im.tile):
            mode, *rest = [tile.args] if isinstance(tile.args, str) else tile.args
            im.tile[i] = tile._replace(args=(raw_modes.get(mode, mode), *rest))
        ImageOps.exif_transpose(im, in_place=True)
        return np.asarray(im)


def png_bytes(pixels, info):
    "The bytes of a PNG of 16-bit colours, or grey with alpha"
    (h, w, c), out = pixels.shape, io.BytesIO()
    rows = pixels.astype(">u2").view(np.uint8).reshape(h, -1)
    # each row less the one above, behind the number of that filter, 2
    rows = np.insert(np.diff(rows, axis=0, prepend=np.uint8(0)), 0, 2, axis=1)
    out.write(b"\x89PNG\r\n\x1a\n")
    putchunk(out, b"IHDR", struct.pack(">2I5B", w, h, 16, {2: 4, 3: 2, 4: 6}[c], 0, 0, 0))
    if "icc_profile" in info: putchunk(out, b"iCCP", b"ICC Profile\0\0", zlib.compress(info["icc_profile"]))
    if "dpi" in info:  # in pixels per metre
        putchunk(out, b"pHYs", struct.pack(">2IB", *(round(float(d)/.0254) for d in info["dpi"]), 1))
    if "exif" in info: putchunk(out, b"eXIf", info["exif"].removeprefix(b"Exif\0\0"))
    for name, text, *_ in png_texts(info).chunks: putchunk(out, name, text)
    putchunk(out, b"IDAT", zlib.compress(rows))
    putchunk(out, b"IEND")
    return out.getvalue()


def tiff_bytes(pixels, mode, info):
    "The bytes of a TIFF of `pixels` `[H, W, C]`, uint8 or uint16, of a `Picture`'s `mode`"
    # Pillow's writer, where it compresses, fails on the inner directories of EXIF, which is TIFF's own
    (h, w, c), tags = pixels.shape, Image.Exif()
    rows = np.diff(pixels, axis=1, prepend=pixels.dtype.type(0))  # predictor 2: less the left
    data = zlib.compress(rows.astype(rows.dtype.newbyteorder("<")))
    tags.load(info.get("exif", b""))
    tags.endian = "<"
    kind = {"L": 1, "LA": 1, "RGB": 2, "RGBA": 2, "CMYK": 5}[mode]
    # 273, the strip's offset, is counted from the end of the directory by Pillow
    tags.update({256: w, 257: h, 258: (8*pixels.itemsize,)*c, 259: 8, 262: kind, 273: 0, 277: c,
                 278: h, 279: len(data), 317: 2})
    if mode in ("LA", "RGBA"): tags[338] = 2  # unassociated alpha
    if "dpi" in info: tags.update({282: info["dpi"][0], 283: info["dpi"][1], 296: 2})
    if "icc_profile" in info: tags[34675] = info["icc_profile"]
    if "xmp" in info: tags[700] = info["xmp"]
    return tags.tobytes().removeprefix(b"Exif\0\0") + data
