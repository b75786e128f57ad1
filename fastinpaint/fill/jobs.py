"What to fill: photographs, their masks and where results go, from folders or a manifest, or a share of them"
import hashlib
import os
from collections import Counter, namedtuple
from pathlib import Path

from PIL import Image

from ..core.errors import InputError, MissingFile, MissingPackage
from ..data.masks import MaskFolder
from ..data.photos import UNREADABLE
from ..data.remote import place
from ..data.shard_index import find_photos, relative_name
from ..data.shards import Member

Job = namedtuple("Job", "image mask out")  # paths as text; a mask of None is missing, "" there need be none
TABLES = ".csv", ".parquet"  # suffixes of manifests and reports
PYARROW = "Parquet needs pyarrow: pip install 'fastinpaint[parquet]'; or take CSV"


def folder_jobs(images, masks, out, format=None, shard=None):
    """The `Job` of every photograph of `images`, or of a `shard` of them; `images` and `masks` may be shards.

    `masks` may also be a file, the mask of all; None: there are none, nor need there be. Raises InputError if
    none has a mask, MissingFile without photographs, Unreachable."""
    images, masks = place(images), masks and place(masks)
    if Path(out).resolve() in (Path(o).resolve() for o in (images, masks) if o):
        raise InputError(f"{out} holds the originals: give the results a folder of their own")
    single, chosen, jobs = masks is None or os.path.isfile(masks), share(shard), []
    photos = find_photos(images, exclude=(masks, out) if masks else (out,))
    names = [relative_name(o, (images,)) for o in photos]
    stems = Counter(os.path.splitext(o)[0] for o in names)
    mask_of = (lambda name: masks or "") if single else MaskFolder(masks).mask_of
    if not single and not any(map(mask_of, names)):
        first = Path(names[0])
        raise InputError(f"none of the {len(names)} photographs in {images} has a mask of the same name "
                         f"in {masks}: {first.name} needs one called {first.stem}.png, of any format")
    for name, image in zip(names, photos, strict=True):
        if not chosen(name): continue
        if os.path.isabs(name) or ".." in Path(name).parts:  # an index from afar may say anything
            raise InputError(f"the fill of {image} would lie outside of {out}: do not trust these shards")
        stem, mask = os.path.splitext(name)[0], mask_of(name)
        if stems[stem] > 1: stem = name  # a.jpg and a.png become a.jpg.png and a.png.png
        suffix = f".{format}" if format else lossless_suffix(image)
        jobs.append(Job(str(image), None if mask is None else str(mask), os.path.join(out, stem + suffix)))
    return jobs


def manifest_jobs(manifest, out=None, shard=None):
    """The `Job` of every row of a CSV or Parquet file with columns image, mask and out, or of a `shard`.

    Paths start where the manifest lies, those of results at `out`, if given; photographs and masks may be in
    shards, also at an address: `s3://bucket/photos/000012.tar/a.jpg`. Raises MissingFile, and InputError for
    what is no such table, an empty cell, and a result that would replace another file."""
    rows, base = read_table(manifest, Job._fields), os.path.dirname(manifest)
    for name in Job._fields:
        empty = rows.index[rows[name].str.strip() == ""]
        if len(empty): raise InputError(f"{manifest}: row {empty[0] + 1} has no {name}")
    bases = base, base, base if out is None else out
    columns = [[_path(start, text) for text in rows[name]]
               for name, start in zip(Job._fields, bases, strict=True)]
    jobs, chosen = [*map(Job, *columns)], share(shard)
    _check_results(manifest, jobs)
    return [job for job, name in zip(jobs, rows["out"], strict=True) if chosen(name)]


def _path(start, text): return text if "://" in text else os.path.normpath(os.path.join(start, text))


def _check_results(manifest, jobs):
    "Raises InputError where two rows have one result, or a result is a photograph or a mask"
    rows = {}
    for i, job in enumerate(jobs, 1):
        if "://" in job.out:
            raise InputError(f"{manifest}: the result of row {i} is {job.out}; expected a path here")
        if (first := rows.setdefault(job.out, i)) != i:
            raise InputError(f"{manifest}: rows {first} and {i} have one result, {job.out}; "
                             "each needs an out of its own")
    for i, job in enumerate(jobs, 1):
        for path in job.image, job.mask:
            if path in rows:
                raise InputError(f"{manifest}: the result of row {rows[path]} would replace {path}, "
                                 f"from which row {i} is made; give it another out")


def read_table(path, columns):
    "Texts of a CSV or Parquet file that has `columns`. Raises MissingFile, MissingPackage, InputError"
    import pandas as pd  # slow to import, and not needed to fill one photograph
    path = Path(path)
    check_table(path)
    try:
        if path.suffix.lower() == ".csv": rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        else: rows = pd.read_parquet(path)
    except FileNotFoundError as e: raise MissingFile(f"no such file: {path}") from e
    except ImportError as e: raise MissingPackage(PYARROW) from e
    except (ValueError, OSError) as e:  # pandas' and pyarrow's own errors are of these
        raise InputError(f"{path} cannot be read as {path.suffix[1:]}: {e}") from e
    if missing := [name for name in columns if name not in rows]:
        raise InputError(f"{path} has no column {', '.join(missing)}, but {', '.join(map(str, rows))}; "
                         f"expected {', '.join(columns)}")
    return rows.fillna("").astype(str).reset_index(drop=True)


def check_table(path):
    "Raises InputError where the name of a table has another suffix than `TABLES`"
    if Path(path).suffix.lower() not in TABLES:
        raise InputError(f"{path} is no table: expected a name that ends in {' or '.join(TABLES)}")


def share(shard):
    """Function name → whether it is in the share `shard`: "2/8" is the second of eight, None all.

    It goes by a hash of the name, so shares are alike on all machines. Raises InputError for another text."""
    if shard is None: return lambda name: True
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputError(f"--shard {shard}: expected i/n, from 1/n to n/n")
    def chosen(name):
        digest = hashlib.sha256(name.replace(os.sep, "/").encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % int(count) == int(number) - 1
    return chosen


def lossless_suffix(image):
    """Of the result for `image`: .tif for TIFF, and for CMYK, which PNG cannot hold; else .png.

    In a shard by its name alone: to open it here would fetch the shard."""
    if isinstance(image, Member): return ".tif" if image.lower().endswith((".tif", ".tiff")) else ".png"
    try:
        with Image.open(image) as im: return ".tif" if im.format == "TIFF" or im.mode == "CMYK" else ".png"
    except UNREADABLE: return ".png"  # filling it will give the reason
