"Files that are replaced whole or not at all"
import os
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex


@contextmanager
def replacing(path):
    """Binary file that takes the place of `path`, in a folder made for it, once it is on the disk.

    After a full disk, an exception or a kill while it is written, the old file is as it was."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        with open(unfinished, "xb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(unfinished, path)
    finally: unfinished.unlink(missing_ok=True)


def remove_unfinished(folder, name):
    "Remove what kills have left of `replacing` files called `name`, a pattern, that nobody else writes now"
    for o in Path(folder).glob(f".{name}.*"): o.unlink()
