"Fills side by side, pixel by pixel, to be compared by eye"
import hashlib
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastinpaint.core.errors import InputError
from fastinpaint.core.files import replacing
from fastinpaint.data.photos import find_images
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.judge.baselines import BASELINES
from fastinpaint.judge.protocol import holes, judged_photos, to_tensor
from fastinpaint.judge.show import outlined

from .settings import GallerySettings

ROWS, GAP, HEAD = 6, 4, 24  # photographs of a sheet; pixels between them and of the titles
SHOWN = 192                 # pixels that small pictures are enlarged to, by a whole number
TEXTURE = "+texture"


def chosen(photos, number):
    "Names of `number` photographs of a folder, by the hash of the name: nobody's choice, and always the same"
    names = [Path(file).relative_to(photos).as_posix() for file in find_images(photos)]
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:number]


def methods(names, device, n=1):
    """Titles, and fills of uint8 `[H, W, 3]` and bool `[H, W]`, of baselines and models called `names`.

    Those of models may end in +texture. A network that generates has `n`, of as many seeds."""
    found = []
    for name in names:
        if name in BASELINES:
            found.append((name, partial(baseline, BASELINES[name])))
            continue
        inpainter, texture = Inpainter(name.removesuffix(TEXTURE), device), name.endswith(TEXTURE)
        several = n > 1 and inpainter.generates
        for seed in range(n if several else 1):
            found.append((title(name) + f" {seed + 1}"*several, partial(of_model, inpainter, texture, seed)))
    return [*zip(*found, strict=True)]


def baseline(fill, image, hole):
    pixels, mask = to_tensor(image), to_tensor(hole[..., None]*np.uint8(255))
    filled = fill(pixels, mask)[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().byte().numpy()
    return np.where(hole[..., None], filled, image)


def of_model(inpainter, texture, seed, image, hole):
    return np.asarray(inpainter(image, hole, texture=texture, seed=seed))


def title(name):
    "What stands above the fills of the method `name`: of a run's `model.safetensors` the run's folder"
    path, texture = Path(name.removesuffix(TEXTURE)), TEXTURE*name.endswith(TEXTURE)
    return (path.parent.name or path.stem if path.stem == "model" else path.stem) + texture


def window(hole, side):
    "Rows and columns of a square of `side` pixels, or of all, around the middle of the hole"
    if not side: return slice(None), slice(None)
    middle = [int(np.median(found)) for found in np.nonzero(hole)]
    starts = [min(max(m - side//2, 0), max(n - side, 0)) for m, n in zip(middle, hole.shape, strict=True)]
    return tuple(slice(start, start + side) for start in starts)


def row(item, fills, side):
    "Photograph with its hole outlined, fills and original of an `Item`, cut and side by side"
    image, mask = item.tensors()
    edge = outlined(image, mask)[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    known = np.where(item.hole[..., None], np.uint8(0), item.image)
    pictures = [fill(known, item.hole) for fill in fills]
    cut = window(item.hole, side)
    return [picture[cut] for picture in (edge, *pictures, item.image)]


def sheet(titles, rows):
    "An image of `rows` of pictures of one size under their `titles`"
    times = max(SHOWN//max(rows[0][0].shape[:2]), 1)
    height, width = (times*n for n in rows[0][0].shape[:2])
    size = len(titles)*(width + GAP) - GAP, HEAD + len(rows)*(height + GAP) - GAP
    page = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for x, title in enumerate(titles): draw.text((x*(width + GAP) + 4, 2), title, "black", font)
    for y, pictures in enumerate(rows):
        for x, picture in enumerate(pictures):
            large = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
            page.paste(large, (x*(width + GAP), HEAD + y*(height + GAP)))
    return page


def items(photos, s):
    "The `Item`s of the gallery: each photograph with a hole of one of the mask sets, in turn"
    names, sets = chosen(photos, s.number), s.masks.split(",")
    found = {}
    for i, mask_set in enumerate(sets):
        of_set = names[i::len(sets)]
        found |= {item.name: item for item in holes(photos, mask_set, s.size) if item.name in of_set}
    return [found[name] for name in names if name in found]


def main(settings: GallerySettings):
    "Fill the chosen photographs by every method, and write sheets of six and their page to `settings.out`"
    s, photos = settings, judged_photos(settings.data)
    if s.number < 1: raise InputError(f"--number {s.number}: a gallery has at least one photograph")
    if s.fills < 1: raise InputError(f"--fills {s.fills}: expected 1 or more")
    titles, fills = methods(s.methods.split(","), s.device, s.fills)
    found, titles, lines = items(photos, s), ["hole", *titles, "original"], ["# Gallery", ""]
    for first in range(0, len(found), ROWS):
        part = found[first:first + ROWS]
        file = Path(s.out)/f"{s.name}-{first//ROWS + 1}.jpg"
        page = sheet(titles, [row(item, fills, s.crop) for item in part])
        with replacing(file) as f: page.save(f, "JPEG", quality=90)
        print(file, flush=True)
        lines += [f"![{', '.join(titles)}]({file.name})", "", "From above: "
                  + ", ".join(f"{item.name} ({item.set})" for item in part) + ".", ""]
    with replacing(Path(s.out)/f"{s.name}.md") as f: f.write("\n".join(lines).encode())
