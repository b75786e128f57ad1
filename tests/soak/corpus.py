"Malformed files without end: what is whole is cut, spliced and overwritten, or lies about itself"
import io
import json
import struct
import zlib
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageCms
from safetensors.torch import save

from fastinpaint.models.lama import lama
from fastinpaint.models.weights import FORMAT

NUMBERS = b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\xff\xff"
VALUES = (10**6, -1, 0, 60, 1e300, float("nan"), True, None, "/etc/passwd", "ffc", [], {}, [[[]]], "9"*999)
DEEP = "["*50_000 + "]"*50_000
INDEX = json.dumps(dict(format="fastinpaint shards 1")).encode()
SHARD = dict(shard="0.tar", bytes=99, sha256="0", names=["a.png"], starts=[0], lengths=[9], skipped={})
KINDS = "image", "mask", "upload", "model", "checkpoint", "index"


def pictures():
    "Bytes of whole photographs of many kinds"
    rgb = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image, lab = Image.fromarray(rgb), ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "Maker", 0x8769: {36867: "2020:01:01 00:00:00"}})
    wide = Image.fromarray(rgb[..., 0].astype(np.int32)*2**20)
    kinds = [("PNG", image, dict(exif=exif)), ("PNG", image.convert("P"), dict(transparency=3)),
             ("PNG", image.convert("LA"), {}), ("PNG", Image.fromarray(rgb[..., 0].astype(np.uint16)*99), {}),
             ("JPEG", image, dict(exif=exif)), ("JPEG", image.convert("CMYK"), {}),
             ("MPO", image, dict(save_all=True, append_images=[image])), ("WEBP", image, {}),
             ("WEBP", image.convert("RGBA"), dict(lossless=True)),
             ("TIFF", image, dict(compression="tiff_lzw")), ("TIFF", wide, {}),
             ("TIFF", image.convert("LAB"), dict(icc_profile=lab)),
             ("TIFF", Image.fromarray(rgb[..., 0]/np.float32(9)), {}), ("TIFF", image.convert("CMYK"), {}),
             ("BMP", image, {}), ("BMP", image.convert("1"), {}), ("GIF", image.convert("P"), {}),
             ("GIF", image, dict(save_all=True, append_images=[image.rotate(90)])), ("ICO", image, {}),
             ("PPM", image, {}), ("TGA", image, {}), ("PCX", image, {}), ("JPEG2000", image, {})]
    for kind, im, options in kinds:
        out = io.BytesIO()
        im.save(out, kind, **options)
        yield out.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height, data=b"", more=b""):
    "A PNG that says it is large"
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def bombs():
    inflated = zlib.compress(bytes(2**27))
    yield from (bomb(30_000, 30_000), bomb(2**31 - 1, 2**31 - 1), bomb(12_000, 12_000), bomb(0, 0),
                bomb(1, 2**31), bomb(9, 9, bytes(2**26)),
                bomb(9, 9, more=chunk(b"iCCP", b"x\0\0" + inflated)),
                bomb(9, 9, more=chunk(b"zTXt", b"x\0\0" + inflated)),
                b"GIF89a" + struct.pack("<2HBBB", 65535, 65535, 0, 0, 0) + b";",
                b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, *[0]*6))


@cache
def sources():
    "Kind → whole files that are spoilt"
    torch.manual_seed(0)
    model = lama(2, 1, autoencoder=None)
    state, config = model.state_dict(), json.dumps(model.config)
    pickled, checkpoint = io.BytesIO(), {"model.1.ffc.convl2l.weight": torch.zeros(8, 4, 7, 7),
                                         "model.4.ffc.convl2g.weight": torch.zeros(3)}
    torch.save({"state_dict": checkpoint}, pickled)
    old = io.BytesIO()
    torch.save(checkpoint, old, _use_new_zipfile_serialization=False)
    index = b"\n".join([INDEX, json.dumps(SHARD).encode()])
    photos = [*pictures()]
    return dict(image=photos, mask=photos, upload=photos, index=[index],
                model=[save(state, {"format": FORMAT, "config": config})],
                checkpoint=[pickled.getvalue(), old.getvalue()])


def lies(kind, rng):
    "Files that are whole and say what is not so, made anew"
    if kind == "model":
        config = json.loads(json.dumps(lama(2, 1, autoencoder=None).config))
        names = [*config, "autoencoder", "model", "path"]
        for name in rng.choice(names, rng.integers(1, 4)): config[name] = VALUES[rng.integers(len(VALUES))]
        text = json.dumps(config) if rng.random() < .8 else [DEEP, "{", "", "null", "[]"][rng.integers(5)]
        return save({"a": torch.zeros(int(rng.integers(1, 9)))}, {"format": FORMAT, "config": text})
    if kind == "checkpoint":
        out, name = io.BytesIO(), f"model.{rng.integers(-1, 70)}.ffc.convl2g.weight"
        shape = rng.integers(0, 5, rng.integers(0, 5)).tolist()
        torch.save({"model.1.ffc.convl2l.weight": torch.zeros(shape), name: torch.zeros(1)}, out)
        return out.getvalue()
    if kind == "index":
        line = SHARD | {[*SHARD][rng.integers(len(SHARD))]: VALUES[rng.integers(len(VALUES))]}
        text = json.dumps(line) if rng.random() < .8 else DEEP
        return b"\n".join([INDEX, text.encode()])
    found = [*bombs()]
    return found[rng.integers(len(found))]


def spoilt(data, rng, others):
    "`data` with some bytes overwritten, cut, doubled, or continued by those of another file"
    data, at = bytearray(data), int(rng.integers(len(data) + 1))
    how = rng.integers(6)
    if how == 0: del data[at:]
    if how == 1: data[at:at + 4] = NUMBERS[rng.integers(len(NUMBERS))]
    if how == 2:
        for i in rng.integers(len(data), size=rng.integers(1, 20)): data[i] = rng.integers(256)
    if how == 3: del data[at:at + int(rng.integers(1, 64))]
    if how == 4: data[at:at] = data[at//2:at]
    if how == 5: data[at:] = others[rng.integers(len(others))][at:]
    # what readers decide by stands at the beginning
    if rng.random() < .5 and data: data[rng.integers(min(len(data), 64))] = rng.integers(256)
    return bytes(data)


def malformed(n, seed=0):
    "Yields `n` pairs of a kind and the bytes of a file, the same for a `seed`"
    rng = np.random.default_rng(seed)
    for i in range(n):
        kind = KINDS[i % len(KINDS)]
        whole = sources()[kind]
        if rng.random() < .2: yield kind, lies(kind, rng)
        else: yield kind, spoilt(whole[rng.integers(len(whole))], rng, whole)
