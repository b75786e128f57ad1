"From data and a model to a Learner"
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

import fastai.callback.schedule  # noqa: F401 - gives the Learner fit_one_cycle and lr_find
import torch
from fastai.callback.core import CancelEpochException
from fastai.learner import Learner
from fastai.torch_core import params, to_detach

from ..core.errors import InputError
from ..core.ranks import world
from ..fill.inpainter import Inpainter
from ..judge.metrics import default_metrics
from ..judge.show import show_latent_damage
from ..models.load import starting_model
from .adam import Adam
from .callback.distributed import Distributed
from .callback.fit import FitCallback
from .callback.terms import LossTerms
from .losses import InpaintLoss, PixelL1
from .step import Step, StepLog


class InpaintLearner(Learner):
    """A fastai `Learner` whose loss reads a `Step`, and whose `FitCallback`s are undone however a fit ends.

    It overrides all private parts of fastai's Learner that the package depends on."""
    def __init__(self, *args, **kwargs):
        self.step = None              # the `Step` at hand
        self.step_log = StepLog()
        self.fit_callbacks = []       # those of the present fit in their order; none outside of one
        self._waiting = []            # those of them whose context has not been entered yet
        self.first_epoch = 0          # of the present fit; a `Checkpoint` that resumes sets it
        self.objective = None         # the `InpaintLoss` of the present fit
        self.forward_context = nullcontext  # of forward pass and loss, such as autocast
        self.wrapped = self.plain    # the callable that runs a batch through a network; see `Distributed`
        super().__init__(*args, **kwargs)

    def inpaint(self, image, mask, **options):
        "The `PIL.Image` that `Inpainter.__call__` makes of these with the Learner's model"
        return Inpainter(self.model)(image, mask, **options)

    def show_results(self, *args, **kwargs):
        "fastai's, with several fills of each hole where the model generates"
        super().show_results(*args, **kwargs | dict(net=self.model))

    show_latent_damage = show_latent_damage

    @property
    def finding_lr(self): return hasattr(self, "lr_finder")

    def _with_events(self, f, event_type, ex, *args, **kwargs):
        # all callbacks of a fit are known by now
        with self._fit_contexts() if event_type == "fit" else nullcontext():
            super()._with_events(f, event_type, ex, *args, **kwargs)

    @contextmanager
    def _fit_contexts(self):
        found = [cb for cb in self.cbs.sorted("order") if isinstance(cb, FitCallback)]
        self.fit_callbacks = [cb for cb in found if cb.in_lr_find or not self.finding_lr]
        self.first_epoch, terms = 0, self.loss_func.terms
        try:
            for cb in self.fit_callbacks: terms = cb.change_terms(terms)
            self.objective, self._waiting = InpaintLoss(*terms), [*self.fit_callbacks]
            with ExitStack() as self._contexts: yield
        finally:
            self.fit_callbacks, self._waiting = [], []
            self.objective, self.forward_context = None, nullcontext

    def enter(self, cb):
        "Enter the context of `cb`, once a fit: callbacks of lower order have prepared the model by then"
        if cb not in self._waiting: return  # amid a fit, validation has the same events
        self._waiting.remove(cb)
        self._contexts.enter_context(cb.during_fit())

    def _do_fit(self):
        for epoch in range(self.first_epoch, self.n_epoch):
            self.epoch = epoch
            self._with_events(self._do_epoch, "epoch", CancelEpochException)
            for cb in self.fit_callbacks: cb.after_trained_epoch()

    @staticmethod
    def plain(module): return module

    def to_detach(self, b, cpu=True, gather=True):
        # fastai gathers from all processes, which wait for each other where one has a batch more
        return to_detach(b, cpu, gather=False)

    def to_distributed(self, *args, **kwargs):
        "What fastai's `distrib_ctx` calls: nothing is left to do for a Learner with `Distributed`"
        return self

    def detach_distributed(self): return self

    def _split(self, b):
        super()._split(b)
        self.step = Step(*(y.as_subclass(torch.Tensor) for y in self.yb))

    def _do_one_batch(self):
        with self.forward_context():
            self.pred = self.wrapped(self.model)(*self.xb)
            self("after_pred")
            self.step.prediction = self.pred
            self.loss_grad = (self.objective or self.loss_func)(self.step)
        self.loss = self.loss_grad.clone()
        self("after_loss")
        if self.training: self._do_grad_opt()


def inpaint_learner(dls, model=None, loss=None, metrics=None, cbs=None, lr=2e-3, wd=0., init=None, **kwargs):
    """An `InpaintLearner` with Adam and every loss term in its log.

    `dls` give xb = (masked, mask), yb = (image, mask); `loss`, a term or their sum, is L1 in pixels. With
    `init`, training goes on from the model of that file, or "sample", as `starting_model` takes it; `model`
    then only says whether the mask is to reach it by mask control. In one of several processes it has a
    `Distributed` callback, if not in `cbs`. Raises what `starting_model` raises."""
    if init: model = starting_model(init, model)
    if model is None: raise InputError("a learner needs a model, or init, a file to go on from")
    if not isinstance(loss, InpaintLoss): loss = InpaintLoss(loss or PixelL1())
    # the optimizer holds all parameters from the start, also those that a schedule thaws later
    kwargs = dict(opt_func=partial(Adam, sqr_mom=.99, eps=1e-8), splitter=params) | kwargs
    if metrics is None: metrics = default_metrics()
    cbs = [LossTerms(), *(cbs or [])]
    if world() > 1 and not any(isinstance(cb, Distributed) for cb in cbs): cbs.append(Distributed())
    return InpaintLearner(dls, model, loss, metrics=metrics, cbs=cbs, lr=lr, wd=wd, **kwargs)
