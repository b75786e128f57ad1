"The web page `fastinpaint app`: upload a photograph, paint the hole, fill it, download"
import math
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir, mkdtemp

from fastcore.xtras import modified_env
from PIL import Image

from ..core.errors import InputError, MissingPackage
from ..core.limits import Stopped
from ..data.photos import UNREADABLE, image_size, open_photo
from ..fill.inpainter import Inpainter
from .turns import Presence, Turns

try:
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware

    from .doors import Page, error, guard
except ImportError as e:
    raise MissingPackage("the web page needs gradio: pip install 'fastinpaint[app]'") from e

READERS = "PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"  # of Pillow's, offered to strangers; JPEG's reads MPO
PREVIEW = 2048  # longest side in pixels of what the browser shows; strokes have its scale
INTRO = """# Fill a hole in a photograph
Paint over what should go, and press **Fill**. Every other pixel stays as it is, and so does the size."""
FILLS = 4  # to choose from, at most
HEIGHT, BRUSH = 520, ("#e5484d", .6)
CSS = """main {width: 100%; max-width: 1240px !important; margin: auto}
#empty {height: 520px; display: grid; place-items: center; color: var(--body-text-color-subdued)}"""


def _unreadable(photo):
    return error(f"{Path(photo).name} cannot be read as a photograph; whole {', '.join(READERS)} can.")


async def in_turn(turns, request, work, *args):
    "What `work(*args)` gives, in its visitor's turn and within the budget; `gr.Error` where it is stopped"
    try: return await turns.run(partial(work, *args), request.client.host, request.session_hash)
    except Stopped as e: raise error(f"{str(e).capitalize()}.") from e


def _check(photo, max_pixels, why=""):
    "The mode of `photo`; `gr.Error` unless it is a file, a photograph, and of at most `max_pixels`"
    name, pixels = Path(photo).name, math.inf
    try:
        with Image.open(photo, formats=READERS) as im: mode, pixels = im.mode, im.width*im.height
    except FileNotFoundError as e:
        raise error("This photograph has been removed from the server; upload it again.") from e
    except Image.DecompressionBombError: pass  # too many pixels
    except UNREADABLE as e: raise _unreadable(photo) from e
    if pixels > max_pixels:
        raise error(f"{name} has more than {max_pixels/1e6:g} million pixels{why}; make it smaller first.")
    return mode


def _hole(strokes, size):
    "Greyscale image of `size`, white where the PNG `strokes` has paint; `gr.Error` if nowhere"
    try:
        with Image.open(strokes or "", formats=["PNG"]) as im:
            if max(im.size) > PREVIEW: raise ValueError(f"strokes beyond {PREVIEW} pixels")
            painted = im.convert("RGBA").getchannel("A").point(lambda a: 255*(a > 0))
    except UNREADABLE: painted = Image.new("L", size)
    if not painted.getbbox(): raise error("Paint over what should go, and press Fill.")
    if painted.getextrema()[0]:
        raise error("Leave a part of the photograph unpainted, which the fill can continue.")
    return painted.resize(size, Image.Resampling.BILINEAR)


def _preview(path):
    "The photograph, small enough for a browser; `gr.Error` where its pixels cannot be read"
    try: im = open_photo(path)
    except UNREADABLE as e: raise _unreadable(path) from e
    im.thumbnail((PREVIEW, PREVIEW))
    return im


def _shown(*visible): return [gr.update(visible=v) for v in visible]


def _columns(models):
    "Where a photograph is uploaded, painted, and the result appears: views, and what is in them"
    with gr.Column():
        with gr.Column() as start:
            photo = gr.Image(label="Photograph", sources=["upload", "clipboard"], height=HEIGHT,
                             placeholder="Drop a photograph here,\nor click to choose or paste one")
        with gr.Column(visible=False) as painting:
            strokes = gr.ImageEditor(
                label="Paint the hole", sources=(), transforms=(), layers=False, format="jpeg",
                brush=gr.Brush(colors=[BRUSH], color_mode="fixed"), height=HEIGHT, buttons=[])
            model = gr.Dropdown(models, label="Model", visible=len(models) > 1)
            with gr.Row():
                dilate = gr.Slider(0, 16, 0, step=1, label="Enlarge the hole", info="pixels on every side")
                fills = gr.Slider(1, FILLS, 1, step=1, label="Fills", info="to choose from")
            with gr.Row():
                texture = gr.Checkbox(True, label="Texture", info="copied from the photograph")
                refine = gr.Checkbox(label="Refine", info="keep the structure of a smaller fill; slow")
            with gr.Row():
                another = gr.Button("Another photograph")
                stop = gr.Button("Stop")
                go = gr.Button("Fill", variant="primary")
    # files as they are: gradio decodes them, and the editor changes the photograph it shows
    photo.preprocess = lambda file: file and file.path
    strokes.preprocess = lambda files: files.layers[0].path if files and files.layers else None
    with gr.Column():
        empty = gr.HTML("The filled photograph will appear here.", elem_id="empty")
        with gr.Column(visible=False) as done:
            chosen = gr.Radio([*range(1, FILLS + 1)], label="Fill, the most coherent first")
            compare = gr.ImageSlider(label="Before and after", format="png", height=HEIGHT,
                                     elem_id="compare", buttons=["fullscreen"])
            result = gr.DownloadButton("Download, lossless", elem_id="download")
    views = start, painting, empty, done
    options = [model, dilate, refine, texture, fills]
    return views, photo, strokes, options, (another, stop, go), chosen, compare, result


def build(inpainters, max_pixels, max_refined, seconds, memory):
    """The page, not yet served; visitors' data are files under names that only their browser gets.

    One photograph at a time is read and one filled, which bounds memory."""
    reading, filling = Turns(seconds, memory), Turns(seconds, memory)
    async def load(photo, request: gr.Request): return await in_turn(reading, request, loaded, photo)
    async def fill(photo, strokes, model, dilate, refine, texture, fills, request: gr.Request):
        options = model, dilate, refine, texture, fills
        return await in_turn(filling, request, filled, photo, strokes, *options)
    async def show(photo, outs, number, request: gr.Request):
        return await in_turn(reading, request, shown, photo, outs, number)

    def loaded(photo):
        _check(photo, max_pixels)
        picture = {"background": _preview(photo), "layers": [], "composite": None}
        return picture, *_shown(False, True, True, False), None, None

    def filled(photo, strokes, model, dilate, refine, texture, fills):
        if not photo: raise error("Upload a photograph first.")
        suffix = ".tif" if _check(photo, max_pixels) == "CMYK" else ".png"
        if refine: _check(photo, max_refined, " to be refined")
        os.utime(photo)  # counts as use
        photo, hole = Path(photo), _hole(strokes, image_size(photo))
        out = Path(mkdtemp(dir=photo.parent), f"{photo.stem}-filled{suffix}")
        # ticked, it is as it is by default: a model that generates has texture, and other fills, of its own
        several = texture or inpainters[model].generates
        n, options = min(int(fills), FILLS) if several else 1, dict(refine=refine, texture=texture and None)
        try: outs = [*map(str, inpainters[model].fill_file(photo, hole, out, n, dilate=dilate, **options))]
        except Stopped: raise
        except (InputError, OSError) as e:
            raise error(str(e).replace(f"{photo.parent}/", "")) from e
        numbers = gr.update(choices=[*range(1, len(outs) + 1)], value=1, visible=len(outs) > 1)
        return *shown(photo, outs, 1), numbers, outs, *_shown(False, True)

    def shown(photo, outs, number):
        _check(photo, max_pixels)
        if number > len(outs) or not Path(out := outs[number - 1]).exists():
            raise error("This fill has been removed from the server; press Fill again.")
        return (_preview(photo), _preview(out)), out

    with Page(title="fastinpaint", analytics_enabled=False) as page:
        gr.Markdown(INTRO)
        outs = gr.State([])  # files of the fills
        with gr.Row():
            views, photo, strokes, options, buttons, chosen, compare, result = _columns([*inpainters])
            another, stop, go = buttons
        # for the page alone; who waits, waits in `Turns`
        private = dict(api_visibility="private", show_progress="minimal", concurrency_limit=None)
        start, painting, empty, done = views
        upload = photo.upload(load, photo, [strokes, *views, compare, result], **private)
        upload.failure(lambda: None, None, photo, **private)
        gr.on([another.click, strokes.clear], lambda: (None, *_shown(True, False)), None,
              [photo, start, painting], **private)
        results = [compare, result, chosen, outs, empty, done]
        stop.click(cancels=[go.click(fill, [photo, strokes, *options], results, **private)])
        chosen.input(show, [photo, outs, chosen], [compare, result], **private)
    page.presence = Presence(lambda *who: [turns.leave(*who) for turns in (reading, filling)])
    return page.queue(max_size=200, default_concurrency_limit=None)


def _check_port(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try: socket.create_server((host, port), family=family).close()
    except OSError as e:
        why = e.strerror.partition(" (")[0]  # which says host and port again
        raise OSError(e.errno, f"cannot serve on {host}, port {port} ({why}); choose another") from e


def _sweep(folder, keep, stopped):
    "Remove files unused for `keep` seconds; gradio's `delete_cache` forgets broken-off uploads"
    while not stopped.wait(max(1, keep/10)):
        for file in folder.rglob("*"):
            with suppress(FileNotFoundError):
                if file.is_file() and time.time() - file.stat().st_ctime > keep: file.unlink()


@contextmanager
def serving(inpainters, host="127.0.0.1", port=7860, max_bytes=64*2**20, max_pixels=50_000_000,
            max_refined=8_000_000, seconds=60, memory=2*2**30, keep=3600):
    """Serve the page in the background; yields it, its address in `local_url`.

    Visitors' files have at most `max_bytes`, are in a folder that only this user can read, and are
    removed `keep` seconds after their last use. A request has a photograph of `max_pixels` at most, to be
    refined of `max_refined`, so many `seconds`, and a network that takes `memory` bytes at a time. What
    nobody waits for any more is stopped. Raises OSError if the port is taken."""
    _check_port(host, port)
    place = dict(prefix="fastinpaint-", dir=os.path.realpath(gettempdir()))
    with (TemporaryDirectory(**place, ignore_cleanup_errors=True) as folder,  # all that it serves
          modified_env(GRADIO_TEMP_DIR=folder, GRADIO_EXAMPLES_CACHE=folder)):
        page, stopped = build(inpainters, max_pixels, max_refined, seconds, memory), threading.Event()
        threading.Thread(target=_sweep, args=(Path(folder), keep, stopped), daemon=True).start()
        guarded = Middleware(BaseHTTPMiddleware, dispatch=partial(
            guard, max_bytes=max_bytes + 2**20, presence=page.presence))
        fonts = dict(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        try:
            page.launch(
                server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, inline=False,
                share=False, run_history=False, enable_monitoring=False, ssr_mode=False, mcp_server=False,
                pwa=False, footer_links=[], app_kwargs=dict(middleware=[guarded]),
                max_file_size=max_bytes, state_session_capacity=100, css=CSS, theme=gr.themes.Soft(**fonts))
            yield page
        finally:
            stopped.set()
            page.close(verbose=False)


def launch(models=("sample",), host="127.0.0.1", port=7860, device="auto"):
    "Serve the page until Ctrl-C, which it raises, with `models` to choose from; 0.0.0.0 lets in everyone"
    inpainters = {str(m): Inpainter(m, device) for m in models}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # photographs are removed then, too
    with serving(inpainters, host, port) as page:
        print(f"The page is at {page.local_url}   (Ctrl-C stops it)", flush=True)
        threading.Event().wait()
