"From data and a model to a fastai `Learner`; filling photographs; models on disk"
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from fastai.learner import Learner
from fastai.optimizer import Adam
from fastai.torch_core import default_device, params
from fastcore.basics import patch

from .callback.terms import LossTerms
from .losses import InpaintLoss, PixelL1
from .models.context_encoder import context_encoder
from .models.lama import lama
from .models.weights import read_weights, write_weights


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
    if metrics is None:
        from .metrics import default_metrics  # seconds to import, which nothing but training needs
        metrics = default_metrics()
    return Learner(dls, model, loss_func=loss, metrics=metrics, cbs=[LossTerms(), *(cbs or [])], lr=lr, wd=wd, **kwargs)


@patch
def inpaint(self: Learner, image, mask, **options):
    "`image` with the hole of `mask` filled, a `PIL.Image`: `Inpainter.__call__` with the Learner's model"
    from .inpaint import Inpainter  # which loads models through this module
    return Inpainter(self.model)(image, mask, **options)


def choose_device(name):
    "The device called `name`; for auto, the GPU if there is one"
    if name == "auto": return default_device()
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available(): raise ValueError(f"--device {name}: this torch sees no GPU")
    return device


@contextmanager
def evaluating(model):
    "`model` in eval mode, then each of its modules in its own again: those of frozen parts differ from the rest"
    modes = {m: m.training for m in model.modules()}
    try: yield model.eval()
    finally:
        for m, training in modes.items(): m.training = training


def save_model(model, path):
    """Write an `InpaintNet` (or a Learner's) to `path`, a `.safetensors` file that says how to rebuild it.

    A `.json` beside it repeats the model's arguments for readers. Files are replaced whole or not at all; never a pickle.
    """
    model = getattr(model, "model", model)
    return write_weights(path, model.state_dict(), model.config)


BUILDERS = {"lama": partial(lama, autoencoder=None), "context_encoder": context_encoder}


def _build(model="lama", **config): return BUILDERS[model](**config)  # LaMa's configs name no model


SAMPLE_MODEL = Path(__file__).parent/"models/sample.safetensors"


def model_file(name): return SAMPLE_MODEL if name == "sample" else Path(name)


def load_model(path):
    """The `InpaintNet` that `save_model` wrote, in eval mode; "sample" is the small one that comes with the package.

    Raises FileNotFoundError, or ValueError for any other file.
    """
    path = model_file(path)
    state, config = read_weights(path)
    try:
        model = _build(**config)
        model.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError, ValueError) as e:
        raise ValueError(f"{path} holds no model of this package: {e}") from e
    return model.eval()
