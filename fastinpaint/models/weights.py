"Weights on disk: one safetensors file that also says how to rebuild the model"
import json
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..core.errors import InputError, MissingFile
from ..core.files import json_object, replacing

FORMAT = "fastinpaint-1"


def write_weights(path, state, config):
    """Write `state` (name → tensor) and `config` (a JSON object) to `path`, atomically.

    The config travels in the file's header, so that the two never part; a `.json` beside it is for readers.
    """
    path = Path(path)
    state = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    meta = {"format": FORMAT, "config": json.dumps(config)}
    with replacing(path) as f: f.write(in_one_order(save(state, meta)))
    with replacing(path.with_suffix(".json")) as f: f.write(json.dumps(config, indent=1).encode())
    return path


def in_one_order(file):
    "The bytes of a safetensors `file` with its metadata sorted: the library draws their order anew each time"
    length = int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" "*(-len(header) % 8)  # tensors begin at a multiple of eight
    return len(header).to_bytes(8, "little") + header + file[8 + length:]


def read_weights(path):
    "The `(state, config)` of `write_weights`. Raises MissingFile, or InputError for other files."
    with _opened(path) as (f, config): return {k: f.get_tensor(k) for k in f.keys()}, config


def read_config(path):
    "The config alone. Raises what `read_weights` raises"
    with _opened(path) as (_, config): return config


@contextmanager
def _opened(path):
    path = Path(path)
    if not path.is_file(): raise MissingFile(f"no weights file at {path.absolute()}")
    try:
        with safe_open(path, "pt") as f:
            meta = f.metadata() or {}
            if meta.get("format") != FORMAT:
                raise InputError(f"{path} was not written by fastinpaint "
                                 "(for LaMa's own checkpoints there is load_lama)")
            yield f, json_object(meta.get("config", ""), f"the configuration in {path}")
    except (SafetensorError, OSError) as e:
        raise InputError(f"{path} is no complete safetensors file ({e})") from e
