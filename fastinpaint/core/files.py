"Files that are replaced whole or not at all, and folders that one process holds"
import errno
import json
import os
import platform
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from .errors import InputError

try:
    import fcntl
except ImportError: fcntl = None  # Windows

# what a disk answers that takes no file: it is full, or not to be written to
REFUSED = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR


@contextmanager
def replacing(path):
    """Binary file that takes the place of `path`, in a folder made for it, once it is on the disk.

    After a full disk, an exception or a kill while it is written, the old file is as it was: what the disk
    refuses is an OSError that says so, and names the file."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "xb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(unfinished, path)
    except OSError as e:
        # of another file that was read meanwhile, or of a server
        other = e.filename is not None and Path(e.filename).name != unfinished.name
        if other or e.errno not in REFUSED: raise
        kept = "what was there before is as it was" if path.exists() else "nothing was written"
        why = f"{e.strerror or e}; {kept}. Make room, or choose another place"
        raise OSError(e.errno, why, str(path)) from e
    finally: unfinished.unlink(missing_ok=True)


@contextmanager
def held(folder):
    """Holds `folder`, made where it is not, for this process, whose number is in its file `.lock`.

    The system takes it back when the process ends, however that is. Raises InputError, naming the other,
    where another process holds it; Windows, and a file system without locks, holds nothing."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    if fcntl is None: return (yield)
    with open(Path(folder)/".lock", "a+") as f:
        # of the process: unlike those of open files, its children do not keep it after its death
        try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EAGAIN):
                f.seek(0)
                raise InputError(f"{folder} is in use by {f.read() or 'another process'}: wait for it, "
                                 "or choose another folder") from e
        f.truncate(0)
        f.write(f"process {os.getpid()} on {platform.node()}")
        f.flush()
        yield


def json_object(text, where):
    "The dict that the JSON `text` is. Raises InputError, naming `where` it stands, for any other"
    try: found = json.loads(text)
    except (ValueError, RecursionError) as e: raise InputError(f"{where} is no JSON: {e}") from e
    if not isinstance(found, dict): raise InputError(f"{where} is no JSON object")
    return found


def remove_unfinished(folder, name):
    "Remove what kills have left of `replacing` files called `name`, a pattern, that nobody else writes now"
    for o in Path(folder).glob(f".{name}.*"): o.unlink()
