"""The photographs and holes of an evaluation: drawn, exported, or read back filled.

A photograph is its central square, resized. A hole depends on its name, the mask set and the seed alone."""
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..core.errors import InputError
from ..data.holes import hole_rng
from ..data.masks import mask_source, read_mask
from ..data.named import named_data
from ..data.photos import Skipped, central_square, find_images, open_photo, readable
from ..data.shard_index import find_photos, relative_name
from ..data.shards import Shards, source_of

SETS = "thin", "medium", "thick"


@dataclass
class Item:
    "Photograph and another system's fill uint8 `[H, W, 3]`, and hole bool `[H, W]`"
    set: str
    name: str
    image: np.ndarray
    hole: np.ndarray
    filled: np.ndarray | None = None

    def tensors(self):
        "Image `[1, 3, H, W]` in [0, 1] and mask `[1, 1, H, W]`"
        return to_tensor(self.image), torch.from_numpy(self.hole)[None, None].float()


def to_tensor(pixels):
    "Float `[1, 3, H, W]` in [0, 1] of uint8 `[H, W, 3]`"
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()/255


def judged_photos(name):
    "The folder or address of photographs `name`, or a set's, to judge on: its valid/ where it has one"
    photos = named_data(name)
    return photos/"valid" if (photos/"valid").is_dir() else photos


def holes(photos, masks=SETS, size=256, seed=42, limit=None):
    "The protocol's items, drawn one at a time, mask set by mask set. Raises InputError for a size below 1"
    if size < 1: raise InputError(f"photographs of {size} pixels a side: expected 1 or more")
    files = find_photos(photos)
    skipped = Skipped(files, files.urls)
    # in the order of names, whatever holds them
    if isinstance(files, Shards): files = files[sorted(range(len(files)), key=lambda i: files[i].name)]
    else: files = readable(files, skipped)
    files = files[:limit]
    for mask_set in [masks] if isinstance(masks, str) else masks:
        source = mask_source(mask_set)
        for file in files:
            if (photo := source_of(file, skipped)) is None: continue  # its shard is named
            name = relative_name(file, (photos,))
            image = np.asarray(central_square(open_photo(photo), size, Image.Resampling.BICUBIC))
            hole = source.central(name, file, size, hole_rng(seed, f"{name} {mask_set}"))
            yield Item(str(mask_set), name, image, hole)


def export_photos(photos, folder, masks=SETS, size=256, seed=42, limit=None):
    "Write the items as PNG to `folder/SET/images` and `folder/SET/masks`; returns their number"
    count = 0
    for item in holes(photos, masks, size, seed, limit):
        count += 1
        stem = Path(item.name).with_suffix("").as_posix().replace("/", "_")
        for kind, pixels in ("images", item.image), ("masks", item.hole.astype(np.uint8)*255):
            path = Path(folder)/re.sub(r"\W", "_", item.set)/kind/f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return count


def read_items(images, masks, filled, invert=False):
    "Items from three folders, by file stem. Raises InputError if names or sizes do not match"
    folders = images, masks, filled
    found = [*map(_by_stem, folders)]
    stems = set().union(*found)
    missing = [f"{Path(folder)} lacks {', '.join(sorted(lacking)[:5])}"
               for folder, files in zip(folders, found, strict=True) if (lacking := stems - files.keys())]
    if missing: raise InputError(f"the folders do not match by file stem: {'; '.join(missing)}")
    for stem in sorted(stems):
        image, mask, fill = files = [of[stem] for of in found]
        arrays = np.asarray(open_photo(image)), read_mask(mask, invert), np.asarray(open_photo(fill))
        if len({x.shape[:2] for x in arrays}) > 1:
            sizes = (f"{file} {x.shape[1]}x{x.shape[0]}" for file, x in zip(files, arrays, strict=True))
            raise InputError(f"image, mask and fill must be of one size: {', '.join(sizes)}")
        yield Item(Path(masks).name, stem, *arrays)


def _by_stem(folder):
    found = {}
    for file in find_images(folder):
        if file != found.setdefault(Path(file).stem, file):
            raise InputError(f"two files of one stem: {found[Path(file).stem]} and {file}")
    return found
