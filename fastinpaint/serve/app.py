"The web page `fastinpaint app`: upload a photograph, paint the hole, fill it, compare, download"
import os
import re
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from PIL import Image

from ..data.photos import UNREADABLE, image_size, open_photo
from ..fill.inpainter import Inpainter

try:
    import gradio as gr
    from gradio_client.utils import is_file_obj, traverse
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
except ImportError as e: raise ImportError("the web page needs gradio: pip install 'fastinpaint[app]'") from e

__all__ = ["build", "launch", "serving"]

FORMATS = "PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF"  # Pillow's other readers are too many to offer to strangers
SUFFIX = {"CMYK": ".tif"}  # which PNG cannot hold
PREVIEW = 2048      # longest side in pixels of what the browser shows; strokes are scaled up to the photograph
MAX_BYTES, MAX_PIXELS = 64*2**20, 50_000_000
KEEP = 3600         # seconds that files are kept after their last use
ROUTES = re.compile(r"/|/(assets|static)/.+|/(theme\.css|favicon\.ico|manifest\.json)|"
                    r"/gradio_api/(startup-events|upload|upload_progress|queue/(join|data)|file=(?!https?:).+)")
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # whatever gradio links to, the browser stays here
INTRO = """# Fill a hole in a photograph
Paint over what should go, and press **Fill**. Every other pixel stays as it is, and so does the size."""
HEIGHT, BRUSH = 520, ("#e5484d", .6)
CSS = """main {width: 100%; max-width: 1240px !important; margin: auto}
#empty {height: 520px; display: grid; place-items: center; color: var(--body-text-color-subdued)}"""


class Guard:
    """ASGI middleware that knows the page's routes and the size of a request; gradio's others are closed.

    Among them are proxies to other addresses, monitoring, and a store in memory for images that nobody removes.
    """
    def __init__(self, app, max_bytes): self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan": return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        if scope["type"] != "http" or not ROUTES.fullmatch(scope["path"]): refusal = PlainTextResponse("no such page", 404)
        elif "transfer-encoding" in headers or int(headers.get("content-length", 0)) > self.max_bytes:
            refusal = PlainTextResponse(f"a request has at most {self.max_bytes} bytes, and says how many", 413)
        else: refusal = None

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)
        await (refusal or self.app)(scope, receive, send_with_policy)


class Page(gr.Blocks):
    "Blocks that take files from visitors by upload alone: gradio would also fetch any address that they name"
    async def preprocess_data(self, block_fn, inputs, *args, **kwargs):
        def check(file):
            if Path(file["path"]).resolve().is_relative_to(self.GRADIO_CACHE): return file
            raise _error("Photographs are uploaded; no other path or address is opened.")
        traverse(inputs, check, is_file_obj)
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)


def _error(message): return gr.Error(message, print_exception=False)


def _check(photo, max_pixels):
    """The suffix of the lossless file that holds `photo` filled.

    Raises `gr.Error` unless it is there, is a photograph, and has at most `max_pixels`, all by its header.
    """
    name = Path(photo).name
    try:
        with Image.open(photo, formats=FORMATS) as im: small, mode = im.width*im.height <= max_pixels, im.mode
    except FileNotFoundError as e: raise _error("This photograph has been removed from the server; upload it again.") from e
    except Image.DecompressionBombError: small = False
    except UNREADABLE as e: raise _error(f"{name} cannot be read as a photograph; {', '.join(FORMATS)} can.") from e
    if not small: raise _error(f"{name} has more than {max_pixels/1e6:g} million pixels, the limit here; make it smaller first.")
    return SUFFIX.get(mode, ".png")


def _hole(strokes, size):
    "Greyscale image of `size`, white where the PNG `strokes` is painted. Raises `gr.Error` if nothing is."
    try:
        with Image.open(strokes or "", formats=["PNG"]) as im:
            if max(im.size) > PREVIEW: raise ValueError(f"strokes are at most {PREVIEW} pixels wide and high")
            painted = im.convert("RGBA").getchannel("A").point(lambda a: 255*(a > 0))
    except UNREADABLE as e: raise _error("Paint over what should go, and press Fill.") from e
    if not painted.getbbox(): raise _error("Paint over what should go, and press Fill.")
    if painted.getextrema()[0]: raise _error("Leave a part of the photograph unpainted, which the fill can continue.")
    return painted.resize(size, Image.Resampling.BILINEAR)


def _preview(path):
    im = open_photo(path)
    im.thumbnail((PREVIEW, PREVIEW))
    return im


def _functions(inpainters, max_pixels):
    "What the page does after an upload and on Fill"
    def load(photo):
        _check(photo, max_pixels)
        return {"background": _preview(photo), "layers": [], "composite": None}, *_shown(False, True, True, False), None, None

    def fill(photo, strokes, model, dilate, refine):
        if not photo: raise _error("Upload a photograph first.")
        suffix, name, folder = _check(photo, max_pixels), Path(photo).stem, Path(photo).parent
        os.utime(photo)  # counts as use
        hole, out = _hole(strokes, image_size(photo)), Path(mkdtemp(dir=folder), f"{name}-filled{suffix}")
        try: inpainters[model].fill_file(photo, hole, out, dilate=dilate, refine=refine)
        except (ValueError, OSError) as e: raise _error(str(e).replace(f"{folder}/", "")) from e
        return (_preview(photo), _preview(out)), str(out), *_shown(False, True)
    return load, fill


def _shown(*visible): return [gr.update(visible=v) for v in visible]


def build(inpainters, max_pixels=MAX_PIXELS):
    """The page as `gr.Blocks`, not yet served.

    `inpainters` maps the names that visitors choose from to `Inpainter`s. Photographs have at most `max_pixels`. All that the
    server keeps of visitors is files in gradio's folder, each under a name that only its visitor's browser is told.
    """
    load, fill = _functions(inpainters, max_pixels)
    with Page(title="fastinpaint", analytics_enabled=False) as page:
        gr.Markdown(INTRO)
        with gr.Row():
            with gr.Column():
                with gr.Column() as start:
                    photo = gr.Image(label="Photograph", sources=["upload", "clipboard"], height=HEIGHT,
                                     placeholder="Drop a photograph here,\nor click to choose or paste one")
                with gr.Column(visible=False) as painting:
                    strokes = gr.ImageEditor(label="Paint the hole", sources=(), transforms=(), layers=False, format="jpeg",
                                             brush=gr.Brush(colors=[BRUSH], color_mode="fixed"), height=HEIGHT, buttons=[])
                    model = gr.Dropdown(list(inpainters), label="Model", visible=len(inpainters) > 1)
                    with gr.Row():
                        dilate = gr.Slider(0, 16, 0, step=1, label="Enlarge the hole", info="pixels on every side")
                        refine = gr.Checkbox(label="Refine", info="keep the structure of a smaller fill; slow")
                    with gr.Row():
                        another = gr.Button("Another photograph")
                        go = gr.Button("Fill", variant="primary")
            with gr.Column():
                with gr.Column() as empty: gr.HTML("The filled photograph will appear here.", elem_id="empty")
                with gr.Column(visible=False) as done:
                    compare = gr.ImageSlider(label="Before and after", format="png", height=HEIGHT, elem_id="compare",
                                             buttons=["fullscreen"])
                    result = gr.DownloadButton("Download, lossless", elem_id="download")
        # files as they are: gradio would decode them first, and the editor's canvas alters the photograph that it shows
        photo.preprocess = lambda file: file and file.path
        strokes.preprocess = lambda files: files.layers[0].path if files and files.layers else None
        # one photograph at a time is read and one filled, which bounds memory; "private": offered to no client library
        private = dict(api_visibility="private", show_progress="minimal")
        photo.upload(load, photo, [strokes, start, painting, empty, done, compare, result], **private
                     ).failure(lambda: None, None, photo, **private)
        gr.on([another.click, strokes.clear], lambda: (None, *_shown(True, False)), None, [photo, start, painting], **private)
        go.click(fill, [photo, strokes, model, dilate, refine], [compare, result, empty, done], **private)
    return page.queue(max_size=50, default_concurrency_limit=1)


def _check_port(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try: s.bind((host, port))
        except OSError as e: raise OSError(e.errno, f"cannot serve on {host}, port {port} ({e.strerror}); choose another") from e


def _sweep(folder, keep, stopped):
    "Remove files that were last used `keep` seconds ago, until `stopped`; gradio's `delete_cache` forgets uploads that broke off"
    while not stopped.wait(max(1, keep/10)):
        for file in folder.rglob("*"):
            with suppress(FileNotFoundError):
                if file.is_file() and time.time() - file.stat().st_ctime > keep: file.unlink()


@contextmanager
def serving(inpainters, host="127.0.0.1", port=7860, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS, keep=KEEP):
    """Serve the page in the background; yields it, its address in `local_url`.

    Files of visitors have at most `max_bytes`, are in a folder that only this user can read, and are removed `keep` seconds after
    their last use, and all at the end. Raises OSError if the port cannot be had.
    """
    _check_port(host, port)
    with TemporaryDirectory(prefix="fastinpaint-", ignore_cleanup_errors=True) as folder:
        before, folder = dict(os.environ), os.path.realpath(folder)
        os.environ |= dict(GRADIO_TEMP_DIR=folder, GRADIO_EXAMPLES_CACHE=folder)  # the only folders that gradio serves files from
        page, stopped = build(inpainters, max_pixels), threading.Event()
        threading.Thread(target=_sweep, args=(Path(folder), keep, stopped), daemon=True).start()
        try:
            page.launch(
                server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, inline=False, share=False,
                run_history=False, enable_monitoring=False, ssr_mode=False, mcp_server=False, pwa=False, footer_links=[],
                max_file_size=max_bytes, app_kwargs=dict(middleware=[Middleware(Guard, max_bytes=max_bytes + 2**20)]),
                state_session_capacity=100, css=CSS,
                theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]))
            yield page
        finally:
            stopped.set()
            page.close(verbose=False)
            for k in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
                os.environ.pop(k)
                if k in before: os.environ[k] = before[k]


def launch(models=("sample",), host="127.0.0.1", port=7860, device="auto", max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS):
    """Serve the page until Ctrl-C, to this computer alone unless `host` says otherwise ("0.0.0.0": to everyone who reaches it).

    `models` are those of `Inpainter`; visitors choose among them. Raises what `Inpainter` does, and OSError if the port is taken.
    """
    inpainters = {str(m): Inpainter(m, device) for m in models}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # photographs are removed then, too
    with suppress(KeyboardInterrupt), serving(inpainters, host, port, max_bytes, max_pixels) as page:
        print(f"The page is at {page.local_url}   (Ctrl-C stops it)", flush=True)
        threading.Event().wait()
