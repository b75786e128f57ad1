"The web page `fastinpaint app`: upload a photograph, paint the hole, fill it, download"
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from fastcore.xtras import modified_env

from ..core.errors import MissingPackage
from ..fill.inpainter import Inpainter

try:
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware

    from .doors import guard
    from .page import build
    from .views import CSS
except ImportError as e:
    raise MissingPackage("the web page needs gradio: pip install 'fastinpaint[app]'") from e


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
