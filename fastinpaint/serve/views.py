"What the page looks like: its parts, their style, and what happens in the browser alone"
import json
from types import SimpleNamespace

import gradio as gr

from .uploads import PAINT

INTRO = """# Fill a hole in a photograph
Mark what should go, and press **Fill**. Every other pixel stays as it is."""
FILLS = 4  # to choose from, at most
BRUSH, CLICK, BOX = TOOLS = "Brush", "Click an object", "Box an object"
HINT = "Click on the object, or on two opposite corners of its box"
SIDES = "Left", "Top", "Right", "Bottom"
LARGEST = 100  # radius of the brush, in pixels
# the tool says which picture is shown, and being busy which button: gradio shows all that is in a view again
# when the view is. On a phone: editor, buttons and result on one screen, what is needed less often below
CSS = """main {width: 100%; max-width: 1240px !important; margin: auto}
#photo, #editor, #clickable, #compare, #empty {height: 520px !important}
#empty {display: grid; place-items: center; color: var(--body-text-color-subdued)}
#clickable img {cursor: crosshair}
#actions:not(.busy) #stop, #actions.busy #go,
#painting:has(#tool label.selected:not(:first-of-type)) #editor,
#painting:not(:has(#tool label.selected:not(:first-of-type))) #clickable {display: none !important}
@media (max-width: 768px) {
  main {padding: 8px !important}
  h1 {font-size: 1.2rem !important; margin: 0 !important}
  #photo, #editor, #clickable, #compare {height: 44svh !important}
  #empty {height: 4em !important}
  #left, #painting {display: contents}
  #results {order: 1}
  #more {order: 2}
  #tool label {padding: 6px 10px; font-size: .8rem; gap: 0}
  #tool label span {margin: 0 !important}
  #tool input {position: absolute; opacity: 0}
  #editor label {display: none}
  #actions {position: sticky; bottom: 8px; z-index: 30; flex-wrap: nowrap}
  #actions button {font-size: .8rem !important; padding: 10px 0; white-space: nowrap}
}"""
COLOURS = dict(colors=[PAINT], default_color=PAINT, color_mode="fixed")
# what an event without Python gives: an output's new settings
SET_BRUSH = f"""size => ({{__type__: "update", eraser: {{default_size: size}},
                          brush: {{...{json.dumps(COLOURS)}, default_size: size}}}})"""
FILLING, IDLE = (f'() => document.querySelector("#actions")?.classList.{change}("busy")'
                 for change in ("add", "remove"))
SHOW_RESULT = """() => document.querySelector("#results")?.scrollIntoView(
  {behavior: "smooth", block: "nearest"})"""
# Ctrl-Z is a click on the editor's Undo, or, where that has nothing, on the page's; [ and ] move a slider
KEYS = """() => document.addEventListener("keydown", event => {
  const typed = "textarea, input:not([type=range]):not([type=radio]):not([type=checkbox])";
  const editor = document.querySelector("#editor"), size = document.querySelector("#brush input[type=range]");
  if (!editor?.offsetParent || event.target.matches(typed)) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() == "z") {
    const own = editor.querySelector(`button[aria-label=${event.shiftKey ? "Redo" : "Undo"}]`);
    (own?.disabled && !event.shiftKey ? document.querySelector("#back") : own)?.click();
    event.preventDefault();
  } else if (event.key == "[" || event.key == "]") {
    size.value = event.key == "[" ? Math.floor(size.value / 1.25) : Math.ceil(size.value * 1.25);
    size.dispatchEvent(new Event("input", {bubbles: true}));
  }
})"""


def start(examples):
    "Where a photograph is chosen"
    with gr.Column() as view:
        photo = gr.Image(label="Photograph", sources=["upload", "clipboard"], elem_id="photo",
                         placeholder="Drop a photograph here,\nor click to choose or paste one")
        samples = gr.Dataset(label="Or one of these", components=["image"], type="index",
                             samples=[[str(o)] for o in examples], elem_id="examples")
    photo.preprocess = _file
    return SimpleNamespace(view=view, photo=photo, examples=samples)


def painting(models, selects):
    "Where the hole is marked, and what is asked for; objects are selected if `selects`"
    with gr.Column(visible=False, elem_id="painting") as view:
        tool = gr.Radio(TOOLS, value=BRUSH, visible=selects, show_label=False, container=False,
                        elem_id="tool")
        strokes = gr.ImageEditor(
            label="Paint the hole", sources=(), transforms=(), layers=False, format="jpeg", elem_id="editor",
            brush=gr.Brush(**COLOURS), buttons=[])
        clickable = gr.Image(label=HINT, interactive=False, elem_id="clickable", buttons=[])
        with gr.Row(elem_id="actions"):
            another = gr.Button("Another photograph", min_width=100)
            stop = gr.Button("Stop", variant="stop", min_width=100, elem_id="stop")
            go = gr.Button("Fill", variant="primary", min_width=100, elem_id="go")
        with gr.Column(elem_id="more"):
            with gr.Row():
                mask = gr.UploadButton("Upload a mask", file_types=["image"], elem_id="mask", size="sm",
                                       min_width=100)
                back = gr.Button("Undo the selection", elem_id="back", size="sm", min_width=100)
            brush = gr.Slider(1, LARGEST, 25, step=1, label="Brush", info="radius in pixels; keys [ and ]",
                              elem_id="brush")
            model = gr.Dropdown(models, label="Model", visible=len(models) > 1)
            options = [model, *_options()]
            sides, share, extend = _canvas()
    clickable.preprocess = mask.preprocess = _file
    strokes.preprocess = lambda sent: sent.layers[0].path if sent and sent.layers else None
    before, corner = gr.State([]), gr.State()  # strokes before each mask and selection; of a box
    return SimpleNamespace(view=view, tool=tool, strokes=strokes, clickable=clickable, another=another,
                           stop=stop, go=go, mask=mask, back=back, brush=brush, options=options, sides=sides,
                           share=share, extend=extend, before=before, corner=corner)


# files as they are: gradio decodes them, and the editor changes the photograph that it shows
def _file(sent): return sent and sent.path


def _options():
    with gr.Accordion("Options", open=False):
        with gr.Row():
            dilate = gr.Slider(0, 16, 0, step=1, label="Enlarge the hole", info="pixels on every side")
            fills = gr.Slider(1, FILLS, 1, step=1, label="Fills", info="to choose from")
        with gr.Row():
            texture = gr.Checkbox(True, label="Texture", info="copied from the photograph")
            refine = gr.Checkbox(label="Refine", info="keep the structure of a smaller fill; slow")
    return dilate, refine, texture, fills


def _canvas():
    with gr.Accordion("Extend the canvas", open=False):
        with gr.Row():
            sides = gr.CheckboxGroup(SIDES, label="Sides", elem_id="sides")
            share = gr.Slider(5, 50, 25, step=5, label="By", info="% of the photograph, on each side")
        extend = gr.Button("Extend")
    return sides, share, extend


def results():
    "Where fills appear"
    with gr.Column(elem_id="results"):
        empty = gr.HTML("The filled photograph will appear here.", elem_id="empty")
        with gr.Column(visible=False) as view:
            chosen = gr.Radio([*range(1, FILLS + 1)], label="Fill, the most coherent first", elem_id="chosen")
            compare = gr.ImageSlider(label="Before and after", format="png", elem_id="compare",
                                     buttons=["fullscreen"])
            with gr.Row():
                onward = gr.Button("Continue from this", min_width=100)
                download = gr.DownloadButton("Download, lossless", elem_id="download", min_width=100)
    files = gr.State([])  # of the fills
    return SimpleNamespace(view=view, empty=empty, chosen=chosen, compare=compare, onward=onward,
                           download=download, files=files)
