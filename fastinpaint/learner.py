"From data and a model to a fastai `Learner`; filling photographs; models on disk"
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fastai.learner import Learner
from fastai.optimizer import Adam
from fastai.torch_core import params
from fastcore.basics import patch
from PIL import Image

from .callback.terms import LossTerms
from .losses import InpaintLoss, PixelL1
from .masks import hole_of, read_mask
from .metrics import default_metrics
from .models.context_encoder import context_encoder
from .models.lama import lama
from .models.weights import read_weights, write_weights
from .photos import open_photo, to_rgb


def inpaint_learner(
    dls,            # `InpaintDataLoaders`, or any that give xb = (masked, mask), yb = (image, mask)
    model,          # `InpaintNet`, such as `lama(control=True)`
    loss=None,      # `InpaintLoss`, or one term of it; L1 in pixels by default
    metrics=None,   # hole L1, PSNR, SSIM and LPIPS by default
    cbs=None,       # what makes the method: `FreezeSchedule()`, `LatentLoss()`, …
    lr=2e-3,        # default learning rate
    wd=0.,          # weight decay
    **kwargs        # for `Learner`
):
    "A plain fastai `Learner` for inpainting, with Adam and every loss term in its log"
    loss = PixelL1() if loss is None else loss
    if not isinstance(loss, InpaintLoss): loss = InpaintLoss(loss)
    # the optimizer holds all parameters from the start, also those that a schedule thaws later
    kwargs = dict(opt_func=partial(Adam, sqr_mom=.99, eps=1e-8), splitter=params) | kwargs
    metrics = default_metrics() if metrics is None else metrics
    return Learner(dls, model, loss_func=loss, metrics=metrics, cbs=[LossTerms(), *(cbs or [])], lr=lr, wd=wd, **kwargs)


@patch
def inpaint(self: Learner, image, mask, invert=False):
    """`image` with the hole of `mask` filled, an RGB `PIL.Image` of the same size.

    Both are paths, PIL images or arrays (image uint8 `[H, W, 3]` or `[H, W]`, mask `[H, W]` bool or uint8, 0/1 or 0…255), of
    any size; 1 or white is hole, with `invert` black. Known pixels come back bit-identical. Raises ValueError where sizes or
    types do not fit.
    """
    return fill(self.model, image, mask, invert)


@contextmanager
def evaluating(model):
    "`model` in eval mode, then each of its modules in its own again: those of frozen parts differ from the rest"
    modes = {m: m.training for m in model.modules()}
    try: yield model.eval()
    finally:
        for m, training in modes.items(): m.training = training


@torch.no_grad()
def fill(model, image, mask, invert=False):
    "`image` with the hole of `mask` filled by an `InpaintNet`, as in `Learner.inpaint`"
    pixels, hole = _pixels(image), _hole(mask, invert)
    if pixels.shape[:2] != hole.shape:
        (h, w), (mh, mw) = pixels.shape[:2], hole.shape
        raise ValueError(f"the image is {w}x{h} pixels, its mask {mw}x{mh}; they must be of one size")
    device = next(model.parameters()).device
    x = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].float()/255
    m = torch.from_numpy(hole).to(device)[None, None].float()
    with evaluating(model): pred = model(x*(1 - m), m)[0].permute(1, 2, 0)
    filled = (pred.float().clamp(0, 1)*255).round().byte().cpu().numpy()
    return Image.fromarray(np.where(hole[..., None], filled, pixels))


def _pixels(image):
    "uint8 `[H, W, 3]` of a path, PIL image or array"
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,), (4,)):
            raise ValueError(f"an image array is uint8 [H, W, 3] or [H, W], got {image.dtype} {list(image.shape)}")
        image = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    return np.array(to_rgb(image) if isinstance(image, Image.Image) else open_photo(image))


def _hole(mask, invert):
    "bool `[H, W]` of a path, PIL image or array"
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or mask.dtype not in (bool, np.uint8):
            raise ValueError(f"a mask array is bool or uint8 [H, W], got {mask.dtype} {list(mask.shape)}")
        return (mask if mask.dtype == bool else mask > 0 if mask.max(initial=0) <= 1 else mask >= 128) != invert
    return hole_of(mask, invert) if isinstance(mask, Image.Image) else read_mask(mask, invert)


def save_model(model, path):
    """Write an `InpaintNet` (or a Learner's) to `path`, a `.safetensors` file that says how to rebuild it.

    A `.json` beside it repeats the model's arguments for readers. Files are replaced whole or not at all; never a pickle.
    """
    model = getattr(model, "model", model)
    return write_weights(path, model.state_dict(), model.config)


BUILDERS = {"lama": partial(lama, autoencoder=None), "context_encoder": context_encoder}


def _build(model="lama", **config): return BUILDERS[model](**config)  # LaMa's configs name no model


SAMPLE_MODEL = Path(__file__).parent/"models/latent_control.safetensors"


def load_model(path):
    """The `InpaintNet` that `save_model` wrote, in eval mode; "sample" is the small one that comes with the package.

    Raises FileNotFoundError, or ValueError for any other file.
    """
    if path == "sample": path = SAMPLE_MODEL
    state, config = read_weights(path)
    try:
        model = _build(**config)
        model.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError, ValueError) as e:
        raise ValueError(f"{path} holds no LaMa of this package: {e}") from e
    return model.eval()
