"What the page does with what a visitor sends: each answer is made in a thread, in the visitor's turn"
import os
import re
import shutil
from pathlib import Path
from tempfile import mkdtemp

import gradio as gr
import numpy as np
from PIL import Image

from ..data.photos import image_size
from ..data.pictures import open_picture
from ..fill.hole import read_hole
from . import objects, uploads
from .doors import error
from .views import BOX, BRUSH, FILLS, HINT, LARGEST, SIDES

FILLED = re.compile(r"-filled(-\d+)?$")  # of the name of a fill that is filled again
SELECTIONS = 20  # that can be undone, at most


class Answers:
    """Answers of a page with `inpainters`, by name, and `examples`; files are in new folders in `folder`.

    Raise `gr.Error` where something is wrong that the visitor can mend."""
    def __init__(self, inpainters, examples, folder, max_pixels, max_refined):
        self.inpainters, self.examples, self.folder = inpainters, examples, folder
        self.max_pixels, self.max_refined = max_pixels, max_refined

    def check(self, photo):
        "The mode of a photograph that has been uploaded, and now counts as used"
        if not photo: raise error("Upload a photograph first.")
        mode = uploads.check(photo, self.max_pixels)
        os.utime(photo)
        return mode

    def size(self, photo):
        "(width, height) of its preview, and so of strokes"
        self.check(photo)
        return image_size(uploads.preview_file(photo))

    def editor(self, photo, paint=None):
        "The editor's value: the preview of `photo`, and on it strokes where the image `paint` is white"
        layers = [uploads.layer(paint, self.folder)] if paint else []
        return dict(background=uploads.preview_file(photo), layers=layers, composite=None)

    def opened(self, photo, paint=None):
        "All of the page with `photo`, `paint` on it, no result, and nothing to undo"
        brush = min(max(2, min(self.size(photo))//16), LARGEST)
        views = [gr.update(visible=visible) for visible in (False, True, True, False)]
        clickable = uploads.clickable_file(photo)
        return self.editor(photo, paint), clickable, str(photo), brush, BRUSH, *views, None, None, []

    def example(self, number):
        if number not in range(len(self.examples)): raise error("There is no such example.")
        return self.opened(shutil.copy(self.examples[number], mkdtemp(dir=self.folder)))

    def continued(self, outs, number): return self.opened(self.fill(outs, number))

    def extended(self, photo, strokes, sides, share):
        "As `opened`, with more canvas on `sides`: `share` % of the photograph on each"
        suffix = self._suffix(photo)
        if not sides: raise error("Choose the sides on which the canvas grows.")
        photo, (w, h) = Path(photo), image_size(photo)
        extend = [round(n*share/100)*(side in sides) for side, n in zip(SIDES, (w, h, w, h), strict=True)]
        if (w + extend[0] + extend[2])*(h + extend[1] + extend[3]) > self.max_pixels:
            raise error(f"It would have more than {self.max_pixels/1e6:g} million pixels; extend it by less.")
        out = Path(mkdtemp(dir=self.folder), f"{photo.stem}{suffix}")
        with uploads.mendable(photo):
            hole = read_hole(uploads.painted(strokes, (w, h)))
            open_picture(photo).extended(*extend).save(out)
            left, top, right, bottom = extend
            hole = np.pad(hole, ((top, bottom), (left, right)), constant_values=True)
        return self.opened(out, Image.fromarray(hole).convert("L").resize(self.size(out)))

    def masked(self, photo, strokes, before, file):
        "The editor with strokes where the mask `file` has its hole, those before it as well, and the tool"
        paint = uploads.mask(file, self.max_pixels, self.size(photo))
        return self.editor(photo, paint), [*before, strokes][-SELECTIONS:], BRUSH

    def picked(self, photo, strokes, before, tool, corner, place):
        """As `masked`, with strokes also on an object: at `place`, or in the box from `corner` to it.

        Then the box's corner, and what to click on next: they alone, where `place` is the first corner."""
        size = self.size(photo)
        times = uploads.enlargement(size)
        try: x, y = place = [min(max(int(o/times), 0), n - 1) for o, n in zip(place, size, strict=True)]
        except (TypeError, ValueError, OverflowError) as e: raise error("Click on the photograph.") from e
        if tool == BOX and not corner:
            return *[gr.skip()]*3, place, gr.update(label="Now the opposite corner")
        with Image.open(uploads.preview_file(photo)) as im: image = im.convert("RGB")
        found = objects.boxed(image, *corner, x, y) if tool == BOX else objects.clicked(image, x, y)
        if found is None: raise error("Nothing stands out there; paint it with the brush.")
        paint = Image.fromarray(np.maximum(uploads.painted(strokes, size), found))
        return self.editor(photo, paint), [*before, strokes][-SELECTIONS:], BRUSH, None, gr.update(label=HINT)

    def back(self, photo, before):
        "As `masked`, with the strokes of `before` the last mask or selection"
        if not before: raise error("There is no mask or selection to undo.")
        paint = uploads.painted(before[-1], self.size(photo))
        return self.editor(photo, paint if paint.getbbox() else None), before[:-1], BRUSH

    def filled(self, photo, strokes, model, dilate, refine, texture, fills):
        suffix = self._suffix(photo)
        if refine: uploads.check(photo, self.max_refined, " to be refined")
        photo, hole = Path(photo), uploads.hole(strokes, image_size(photo))
        out = Path(mkdtemp(dir=self.folder), f"{FILLED.sub('', photo.stem)}-filled{suffix}")
        # ticked, it is as it is by default: a model that generates has texture, and other fills, of its own
        inpainter = self.inpainters[model]
        n = min(int(fills), FILLS) if texture or inpainter.generates else 1
        options = dict(dilate=dilate, refine=refine, texture=texture and None)
        with uploads.mendable(photo): outs = [*map(str, inpainter.fill_file(photo, hole, out, n, **options))]
        numbers = gr.update(choices=[*range(1, len(outs) + 1)], value=1, visible=len(outs) > 1)
        return *self.shown(photo, outs, 1), numbers, outs, gr.update(visible=False), gr.update(visible=True)

    def _suffix(self, photo): return ".tif" if self.check(photo) == "CMYK" else ".png"

    def shown(self, photo, outs, number):
        "Fill `number` beside the photograph, and its file"
        self.check(photo)
        out = self.fill(outs, number)
        return (uploads.preview(photo), uploads.preview(out)), out

    def fill(self, outs, number):
        if number in range(1, len(outs) + 1) and Path(out := outs[number - 1]).exists(): return out
        raise error("This fill has been removed from the server; press Fill again.")
