"Filling a folder of photographs: the mask and the result of each, and which are left to do"
import os
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ..core.errors import InputError
from ..data.masks import MaskFolder
from ..data.photos import UNREADABLE, find_images
from .workers import Job, fill_in_processes, fill_in_turn


@dataclass
class FolderResult:
    "How many photographs of a folder were filled, and why others were not"
    filled: int = 0
    kept: int = 0  # filled before
    failed: dict[str, str] = field(default_factory=dict)  # path → reason

    def __str__(self):
        head = f"filled {self.filled}, kept {self.kept}, failed {len(self.failed)}"
        reasons = [f"{photo}: {reason}" for photo, reason in self.failed.items()]
        return "\n  ".join([head + ":"*bool(reasons), *reasons])


def fill_folder(
    images,           # Folder of photographs, searched at any depth
    masks,            # Folder of masks: same path within the folder, or same file stem, any format
    out,              # Folder of results, at the paths that the photographs have in theirs
    model="sample",   # As for `Inpainter`
    workers=1,        # Processes of one thread and a model each; 1: only this one, all threads
    format=None,      # Of the results: png, tif, webp or jpg; None chooses a lossless one
    overwrite=False,  # Fill again what has been filled
    progress=None,    # Wraps the iterable of (path, reason or None) and takes `total`, as tqdm does
    device="auto",    # As for `Inpainter`
    precision="fp32", # As for `Inpainter`
    **options         # For `Inpainter.fill_file`: invert, dilate, feather, refine, strategy
):
    """Fill every photograph under `images` and return a `FolderResult`.

    Results are written whole or not at all, and kept by the next run, which so continues one that
    was stopped. A photograph that cannot be filled does not stop the others. Several workers have
    to be started in the main thread. Raises InputError where a folder does not fit, and what
    `Inpainter` raises.
    """
    if workers < 1: raise InputError(f"workers={workers}: expected 1 or more")
    if Path(out).resolve() in (Path(images).resolve(), Path(masks).resolve()):
        raise InputError(f"the results would go among the originals in {out}: give them a folder "
                         "of their own")
    jobs, result = _jobs(images, masks, out, format), FolderResult()
    result.failed = {o.photo: f"no mask of the same name in {masks}" for o in jobs if not o.mask}
    todo = [o for o in jobs if o.mask and (overwrite or not o.out.exists())]
    result.kept = len(jobs) - len(result.failed) - len(todo)
    if not todo: return result
    load = dict(model=model, device=device, precision=precision)
    run = (fill_in_turn(todo, load, options) if workers == 1 else
           fill_in_processes(todo, load, options, min(workers, len(todo))))
    with closing(run):
        for photo, reason in progress(run, total=len(todo)) if progress else run:
            if reason is None: result.filled += 1
            else: result.failed[photo] = reason
    return result


def _jobs(images, masks, out, format):
    "The `Job` of every photograph. Raises InputError if none has a mask."
    found, jobs = MaskFolder(masks), []
    names = [os.path.relpath(o, images) for o in find_images(images, exclude=(masks, out))]
    stems = Counter(os.path.splitext(o)[0] for o in names)
    for name in names:
        photo, stem = os.path.join(images, name), os.path.splitext(name)[0]
        if stems[stem] > 1: stem = name  # a.jpg and a.png become a.jpg.png and a.png.png
        suffix = f".{format}" if format else lossless_suffix(photo)
        jobs.append(Job(photo, found.mask_of(name), Path(out)/(stem + suffix)))
    if any(o.mask for o in jobs): return jobs
    first = Path(names[0])
    raise InputError(f"none of the {len(jobs)} photographs in {images} has a mask of the same name "
                     f"in {masks}: {first.name} needs one called {first.stem}.png, of any format")


def lossless_suffix(photo):
    "Of the result for `photo`: .tif for TIFF, and for CMYK, which PNG cannot hold; else .png"
    try:
        with Image.open(photo) as im:
            return ".tif" if im.format == "TIFF" or im.mode == "CMYK" else ".png"
    except UNREADABLE: return ".png"  # filling it will give the reason
