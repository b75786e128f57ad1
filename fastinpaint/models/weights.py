"Weights on disk: one safetensors file that also says how to rebuild the model, replaced whole or not at all"
import json
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

FORMAT = "fastinpaint-1"


@contextmanager
def replacing(path):
    """Binary file that takes the place of `path` only once it is complete and on the disk.

    Whatever goes wrong before (a full disk, an exception, a kill) leaves the old file as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as f:
        try:
            yield f
            f.flush()
            os.fsync(f.fileno())
            os.chmod(f.name, 0o666 & ~_umask())
            os.replace(f.name, path)
        finally: Path(f.name).unlink(missing_ok=True)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_weights(path, state, config):
    """Write `state` (name → tensor) and `config` (whatever JSON holds) to `path`, atomically.

    The config travels in the file's header, so that the two never part; `path` with the suffix `.json` repeats it for readers.
    """
    path = Path(path)
    state = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    with replacing(path) as f: f.write(save(state, {"format": FORMAT, "config": json.dumps(config)}))
    with replacing(path.with_suffix(".json")) as f: f.write(json.dumps(config, indent=1).encode())
    return path


def read_weights(path):
    "The `(state, config)` that `write_weights` wrote. Raises FileNotFoundError, or ValueError if it is some other file."
    path = Path(path)
    if not path.is_file(): raise FileNotFoundError(f"no weights file at {path.absolute()}")
    try:
        with safe_open(path, "pt") as f:
            meta = f.metadata() or {}
            state = {k: f.get_tensor(k) for k in f.keys()}
    except SafetensorError as e: raise ValueError(f"{path} is no complete safetensors file ({e})") from e
    if meta.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by fastinpaint (for LaMa's own checkpoints there is load_lama)")
    return state, json.loads(meta["config"])
