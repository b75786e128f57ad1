"Sets of photographs that are known by name: `sample` (in the package), `pets`, `imagenette`"
from pathlib import Path

from fastai.data.external import URLs, fastai_path, untar_data

from ..core.download import unreachable
from ..core.errors import InputError, Unreachable

NAMED_DATA = dict(pets=(URLs.PETS, "images"), imagenette=(URLs.IMAGENETTE_320, ""))  # URL, folder


def named_data(name: str | Path) -> Path:
    "The folder `name` or a set's, downloaded once; raises Unreachable, InputError for other names"
    if name == "sample": return Path(__file__).parent / "sample"
    if name in NAMED_DATA:
        url, folder = NAMED_DATA[name]
        there = URLs.path(url).exists() or (fastai_path("data") / Path(url).stem).exists()
        if not there and (why := unreachable(url)):
            raise Unreachable(f"cannot download {name} from {url} ({why}); pass a folder of "
                              "photographs instead, for example --data path/to/photos, or --data sample")
        return untar_data(url) / folder
    if Path(name).is_dir(): return Path(name)
    raise InputError(f"{name!r} is neither a folder nor one of sample, {', '.join(NAMED_DATA)}")
