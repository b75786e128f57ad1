"The page as a whole: what happens at a click, and in whose turn"
from functools import partial

import gradio as gr

from ..core.limits import Stopped
from ..data.named import named_data
from . import objects, views
from .answers import Answers
from .doors import Page, error
from .turns import Presence, Turns

EXAMPLES = "cat", "kangaroo", "red-panda", "gatewayofindia", "station1"
# for the page alone; who waits, waits in `Turns`
PRIVATE = dict(api_visibility="private", show_progress="minimal", concurrency_limit=None)


async def in_turn(turns, request, work, *args, **more):
    "What `work(*args)` gives, in its visitor's turn and within the budget; `gr.Error` where it is stopped"
    try: return await turns.run(partial(work, *args), request.client.host, request.session_hash, **more)
    except Stopped as e: raise error(f"{str(e).capitalize()}.") from e


class Requests:
    "What visitors ask for, each in its turn: one photograph at a time is read and one filled, for all"
    def __init__(self, answers, seconds, memory):
        self.answers, self.reading, self.filling = answers, Turns(seconds, memory), Turns(seconds, memory)

    def leave(self, *who):
        for turns in (self.reading, self.filling): turns.leave(*who)

    async def load(self, photo, request: gr.Request):
        return await in_turn(self.reading, request, self.answers.opened, photo)

    async def example(self, number, request: gr.Request):
        return await in_turn(self.reading, request, self.answers.example, number)

    async def onward(self, outs, number, request: gr.Request):
        return await in_turn(self.reading, request, self.answers.continued, outs, number)

    async def extend(self, photo, strokes, sides, share, request: gr.Request):
        return await in_turn(self.filling, request, self.answers.extended, photo, strokes, sides, share)

    async def mask(self, photo, strokes, before, file, request: gr.Request):
        return await in_turn(self.reading, request, self.answers.masked, photo, strokes, before, file)

    async def pick(self, photo, strokes, before, tool, corner, request: gr.Request, place: gr.SelectData):
        args = photo, strokes, before, tool, corner, place.index
        return await in_turn(self.reading, request, self.answers.picked, *args)

    async def back(self, photo, before, request: gr.Request):
        return await in_turn(self.reading, request, self.answers.back, photo, before)

    async def fill(self, photo, strokes, model, dilate, refine, texture, fills, request: gr.Request,
                   progress=gr.Progress()):  # noqa: B008
        args = photo, strokes, model, dilate, refine, texture, fills
        def tell(done, of): progress((done, of), desc="Filling")
        return await in_turn(self.filling, request, self.answers.filled, *args, tell=tell)

    async def show(self, photo, outs, number, request: gr.Request):
        return await in_turn(self.reading, request, self.answers.shown, photo, outs, number)


def build(inpainters, max_pixels, max_refined, seconds, memory):
    "The page, not yet served; visitors' data are files under names that only their browser gets"
    examples = [named_data("sample")/"valid"/f"{name}.jpg" for name in EXAMPLES]
    gr.set_static_paths(examples)  # shown from where they are: copies would be removed like visitors' files
    with Page(title="fastinpaint", analytics_enabled=False) as page:
        gr.Markdown(views.INTRO)
        with gr.Row():
            with gr.Column(elem_id="left"):
                start = views.start(examples)
                painting = views.painting([*inpainters], objects.available())
            results = views.results()
        answers = Answers(inpainters, examples, page.GRADIO_CACHE, max_pixels, max_refined)
        requests = Requests(answers, seconds, memory)
        _open(requests, start, painting, results)
        _mark(requests, start.photo, painting)
        _fill(requests, start.photo, painting, results)
        page.load(None, js=views.KEYS)
    page.presence = Presence(requests.leave)
    return page.queue(max_size=200, default_concurrency_limit=None)


def _open(requests, start, painting, results):
    "A photograph comes into the editor, or leaves it"
    photo, strokes = start.photo, painting.strokes
    opened = [strokes, painting.clickable, photo, painting.brush, painting.tool, start.view, painting.view,
              results.empty, results.view, results.compare, results.download, painting.before]
    upload = photo.upload(requests.load, photo, opened, **PRIVATE)
    upload.failure(lambda: None, None, photo, **PRIVATE)
    start.examples.click(requests.example, start.examples, opened, **PRIVATE)
    results.onward.click(requests.onward, [results.files, results.chosen], opened, **PRIVATE)
    canvas = painting.sides, painting.share
    painting.extend.click(requests.extend, [photo, strokes, *canvas], opened, **PRIVATE)
    gr.on([painting.another.click, strokes.clear],
          lambda: (None, gr.update(visible=True), gr.update(visible=False)), None,
          [photo, start.view, painting.view], **PRIVATE)


def _mark(requests, photo, painting):
    "The hole grows, by other means than the editor's brush"
    strokes, clickable, tool = painting.strokes, painting.clickable, painting.tool
    now, marked = [photo, strokes, painting.before], [strokes, painting.before, tool]
    painting.mask.upload(requests.mask, [*now, painting.mask], marked, **PRIVATE)
    if objects.available():
        clickable.select(requests.pick, [*now, tool, painting.corner],
                         [*marked, painting.corner, clickable], **PRIVATE)
    painting.back.click(requests.back, [photo, painting.before], marked, **PRIVATE)
    tool.change(lambda: None, None, painting.corner, **PRIVATE)
    painting.brush.change(None, painting.brush, strokes, js=views.SET_BRUSH)


def _fill(requests, photo, painting, results):
    "Fills are made, stopped, and looked at"
    go, stop = painting.go, painting.stop
    filled = [results.compare, results.download, results.chosen, results.files, results.empty, results.view]
    shown = dict(show_progress="full", show_progress_on=[results.empty, results.compare])
    go.click(None, js=views.FILLING)
    job = go.click(requests.fill, [photo, painting.strokes, *painting.options], filled, **PRIVATE | shown)
    job.then(None, js=views.IDLE)
    job.success(None, js=views.SHOW_RESULT)
    stop.click(None, js=views.IDLE, cancels=[job])
    results.chosen.input(requests.show, [photo, results.files, results.chosen],
                         [results.compare, results.download], **PRIVATE)
