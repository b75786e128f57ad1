"Filling photographs: one path from an image and its hole to the result, behind `Learner.inpaint`, the command line and the page"
from pathlib import Path

from .learner import fill, load_model
from .recipe import choose_device


class Inpainter:
    """Fills photographs with `model`, on `device`, in `precision`, by `strategy`; the same input gives the same result.

    `model` is an `InpaintNet`, a `.safetensors` file of `save_model`, a published LaMa checkpoint, or "sample".
    """
    def __init__(self, model="sample", device="auto", precision="fp32", strategy="auto"):
        self.device, self.precision, self.strategy = choose_device(device), precision, strategy
        self.model = (load_model(model) if isinstance(model, str | Path) else model).to(self.device)

    def __call__(self, image, mask, invert=False, dilate=0, feather=0, refine=False, strategy=None):
        return fill(self.model, image, mask, invert)

    def fill_file(self, image, mask, out, **options):
        self(image, mask, **options).save(out)
