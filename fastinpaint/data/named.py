"""Sets of photographs that are known by name.

`sample` comes with the package; fastai downloads `pets` and `imagenette`. The sets of LaMa (Suvorov et al.
2022) lie in fastai's folder of data (~/.fastai/data; FASTAI_HOME moves it), as train, valid and test."""
import shutil
from pathlib import Path

import numpy as np
from fastai.data.external import URLs, fastai_path, untar_data

from ..core.download import unreachable
from ..core.errors import InputError, Unreachable
from .archives import fetch_archive, link_photos, unpack, whole_folder
from .remote import Remote, place

NAMED_DATA = dict(pets=(URLs.PETS, "images"), imagenette=(URLs.IMAGENETTE_320, ""))  # URL, folder
LAMA_DATA = "places2", "places2-small", "places2-challenge", "celeba-hq"
PLACES_URL = "http://data.csail.mit.edu/places/places365/"
PLACES = {  # MD5 of the authors' archives, as in torchvision's `Places365`
    "train_large_places365standard.tar": "67e186b496a84c929568076ed01a8aa1",
    "train_256_places365standard.tar": "53ca1c756c3d1e7809517cc47c5561c5",
    "train_large_places365challenge.tar": "605f18e68e510c82b958664ea134545f",
    "val_large.tar": "9b71c4993ad89d2d8bcbdc4aef38042f", "val_256.tar": "e27b17d8d44f4af9a78502beb927f808"}
VALID, PLACES_TEST, CELEBA_TEST, CELEBA = 2_000, 30_000, 2_000, 30_000  # photographs; in the last, all


def named_data(name: str | Path) -> Path | Remote:
    """The folder or address `name`, or a set's, downloaded once; `SET/test` is a part of one of LaMa's sets.

    Raises Unreachable, InputError for other names, broken archives, and a set that its user has to get."""
    if name == "sample": return Path(__file__).parent / "sample"
    if name in NAMED_DATA: return _of_fastai(name)
    if "://" in str(name) or Path(name).is_dir(): return place(name)
    known, _, part = str(name).partition("/")
    if known in LAMA_DATA and part in ("", "train", "valid", "test"):
        photos = fastai_path("data") / known / "photos"
        if not photos.is_dir(): (_make_celeba if known == "celeba-hq" else _make_places)(photos, known)
        return photos / part
    names = ", ".join(("sample", *NAMED_DATA, *LAMA_DATA))
    raise InputError(f"{str(name)!r} is neither a folder nor one of {names}, nor an address as https://… or s3://…")


def _of_fastai(name: str) -> Path:
    url, folder = NAMED_DATA[name]
    there = URLs.path(url).exists() or (fastai_path("data") / Path(url).stem).exists()
    if not there and (why := unreachable(url)):
        raise Unreachable(f"cannot download {name} from {url} ({why}); pass a folder of "
                          "photographs instead, for example --data path/to/photos, or --data sample")
    return untar_data(url) / folder


def _parts(names: list[str], test: int, listed: Path) -> dict[str, list[str]]:
    "test: the names in the file `listed`, if there is one, else drawn; valid: drawn; train: the others"
    order = np.random.default_rng(0).permutation(sorted(names)).tolist()
    chosen = set(order[:test])
    if listed.exists(): chosen = {Path(o).name for o in listed.read_text().split()}
    if missing := chosen.difference(order):
        raise InputError(f"{listed} names {len(missing)} photographs that are missing, as {min(missing)}")
    others = [o for o in order if o not in chosen]
    return dict(test=sorted(chosen), valid=others[:VALID], train=others[VALID:])


def _make_places(photos: Path, name: str):
    "Training photographs are the authors'; of those held out, LaMa evaluates on 30,000"
    size = "256" if name == "places2-small" else "large"
    kind = "challenge" if name == "places2-challenge" else "standard"
    print("Places2 is for research and education that is not commercial: http://places2.csail.mit.edu")
    archives = {"train": f"train_{size}_places365{kind}.tar", "held": f"val_{size}.tar"}
    for o in archives.values(): fetch_archive(PLACES_URL + o, photos.parent / o, PLACES[o])
    with whole_folder(photos) as unfinished:
        for part, o in archives.items(): unpack(photos.parent / o, unfinished / part)
        held = {o.name: o for o in (unfinished / "held").rglob("*.jpg")}
        parts = _parts([*held], PLACES_TEST, photos.parent / "eval_random_files.txt")
        for part in "test", "valid": link_photos(((o, held[o]) for o in parts[part]), unfinished / part)
        shutil.rmtree(unfinished / "held")


def _make_celeba(photos: Path, name: str):
    "LaMa evaluates on 2,000, which its val_shuffled.flist names, and chooses models on 2,000 others"
    folder = photos.parent
    with whole_folder(photos) as unfinished:
        for o in folder.glob("*.zip"): unpack(o, unfinished / "all")
        found = {int(o.stem): o for o in folder.rglob("*.jpg") if o.stem.isdigit()}
        if len(found) != CELEBA:
            raise InputError(
                f"{folder} holds {len(found)} of the {CELEBA} photographs of {name}, which are not to be "
                "passed on: get data256x256.zip as https://github.com/advimman/lama#celeba says, or "
                "CelebAMask-HQ.zip from https://github.com/switchablenorms/CelebAMask-HQ, for research that "
                f"is not commercial, and put the .zip or a folder of the .jpg files in {folder}")
        named = {f"{i - min(found)}.jpg": o for i, o in found.items()}  # LaMa counts from 0
        parts = _parts([*named], CELEBA_TEST, folder / "val_shuffled.flist")
        for part, names in parts.items(): link_photos(((o, named[o]) for o in names), unfinished / part)
        shutil.rmtree(unfinished / "all", ignore_errors=True)
