"What of gradio the page lets in: requests by their address and size, files that were uploaded"
import math
import re
from pathlib import Path

import gradio as gr
from gradio_client.utils import is_file_obj, traverse
from starlette.responses import PlainTextResponse

ROUTES = re.compile(
    r"/|/(assets|static)/.+|/(theme\.css|favicon\.ico|manifest\.json)|/gradio_api/"
    r"(startup-events|upload|upload_progress|cancel|queue/(join|data)|file=(?!https?:).+)")
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # no other hosts


async def guard(request, call_next, max_bytes, presence):
    """Middleware that refuses large requests and gradio's other routes: proxies, monitoring, a store.

    `presence` learns who listens to the events of a session."""
    headers = request.headers
    size = math.inf if "transfer-encoding" in headers else int(headers.get("content-length", 0))
    if not ROUTES.fullmatch(request.scope["path"]): response = PlainTextResponse("no such page", 404)
    elif size <= max_bytes:
        response = await call_next(request)
        if request.scope["path"].endswith("/queue/data"):
            session = request.query_params.get("session_hash", "")
            response.body_iterator = presence.through(session, response.body_iterator)
    else: response = PlainTextResponse(f"a request has at most {max_bytes} bytes, and says how many", 413)
    response.headers["Content-Security-Policy"] = POLICY
    return response


class Page(gr.Blocks):
    """Blocks that open uploaded files alone: gradio would also fetch any address in a request.

    A component's own `preprocess` stays: gradio makes another component where a setting of one changes."""
    async def preprocess_data(self, block_fn, inputs, state, *args, **kwargs):
        def check(file):
            if Path(file["path"]).resolve().is_relative_to(self.GRADIO_CACHE): return file
            raise error("Photographs are uploaded; no other path or address is opened.")
        traverse(inputs, check, is_file_obj)
        for block in block_fn.inputs:
            if "preprocess" in vars(block) and state and block._id in state:
                state[block._id].preprocess = block.preprocess
        return await super().preprocess_data(block_fn, inputs, state, *args, **kwargs)


def error(message): return gr.Error(message, print_exception=False)


def notice(message): gr.Warning(message)
