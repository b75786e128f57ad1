"From data and a model to a fastai `Learner`; filling photographs; models on disk"
from functools import partial

from fastai.learner import Learner
from fastai.optimizer import Adam
from fastai.torch_core import params
from fastcore.basics import patch

from .callback.terms import LossTerms
from .losses import InpaintLoss, PixelL1


def inpaint_learner(
    dls,            # `InpaintDataLoaders`, or any that give xb = (masked, mask), yb = (image, mask)
    model,          # `InpaintNet`, such as `lama(control="mask")`
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
        from ..judge.metrics import default_metrics  # seconds to import, which nothing but training needs
        metrics = default_metrics()
    return Learner(dls, model, loss_func=loss, metrics=metrics, cbs=[LossTerms(), *(cbs or [])], lr=lr, wd=wd, **kwargs)


@patch
def inpaint(self: Learner, image, mask, **options):
    "`image` with the hole of `mask` filled, a `PIL.Image`: `Inpainter.__call__` with the Learner's model"
    from ..fill.inpainter import Inpainter  # which loads models through this module
    return Inpainter(self.model)(image, mask, **options)
