"Malformed files at every door: `python tests/soak/fuzz.py 20000` opens so many, and says what became of them"
import signal
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from corpus import malformed  # noqa: E402

from fastinpaint.core.errors import InputError  # noqa: E402
from fastinpaint.data.pictures import open_picture  # noqa: E402
from fastinpaint.data.shard_index import read_shards  # noqa: E402
from fastinpaint.fill.hole import read_hole  # noqa: E402
from fastinpaint.models.load import load_model  # noqa: E402
from fastinpaint.models.published import load_lama  # noqa: E402

SECONDS, MEMORY = 5, 2**30  # of processor time for one file; bytes that it may take


def uploaded(path):
    "What the page does with an upload: as a photograph, as strokes, and as a mask"
    import gradio as gr

    from fastinpaint.serve import uploads
    for work, *args in ((uploads.check, path, 50_000_000), (uploads.preview, path),
                        (uploads.hole, path, (48, 32)), (uploads.mask, path, 50_000_000, (48, 32))):
        try: work(*args)
        except gr.Error as e: raise InputError(str(e)) from e


def indexed(path):
    path.rename(path.with_name("index.jsonl"))
    return read_shards(path.parent)


DOORS = dict(image=("a.png", open_picture), mask=("a.png", read_hole), upload=("a.png", uploaded),
             model=("a.safetensors", load_model), checkpoint=("a.ckpt", load_lama), index=("a", indexed))


def too_long(*_): raise TimeoutError(f"no answer in {SECONDS} seconds")


def memory(what):
    "Bytes of this process: VmRSS, those that it has, or VmHWM, the most since `forget_peak` (Linux)"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1])*1024


def forget_peak(): Path("/proc/self/clear_refs").write_text("5")


def answer(door, path):
    "What `door` does with a file: opened or refused. Raises MemoryError, and what `door` should not"
    forget_peak()
    most = memory("VmRSS") + MEMORY
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        door(path)
        became = "opened"
    except InputError: became = "refused"
    finally: signal.setitimer(signal.ITIMER_PROF, 0)
    if memory("VmHWM") > most: raise MemoryError(f"more than {MEMORY} bytes")
    return became


def opened(n, seed=0, folder=None):
    """Counts of (kind, "opened" or "refused") of `n` files.

    Raises as `answer`, TimeoutError where it takes too long; the file is then left in `folder`."""
    counts, before = Counter(), signal.signal(signal.SIGPROF, too_long)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        for i, (kind, data) in enumerate(malformed(n, seed)):
            name, door = DOORS[kind]
            # named by what it is: the file of that number of that seed, of that kind
            (kept := Path(folder or ".", f"fuzz-{kind}-{seed}-{i}")).write_bytes(data)
            (path := Path(place)/name).write_bytes(data)
            counts[kind, answer(door, path)] += 1
            kept.unlink()
    signal.signal(signal.SIGPROF, before)
    return counts


if __name__ == "__main__":
    for (kind, became), count in sorted(opened(int(sys.argv[1]), int((sys.argv[2:] or [0])[0])).items()):
        print(f"{kind:12} {became:8} {count}")
