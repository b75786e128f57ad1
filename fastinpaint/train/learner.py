"From data and a model to a Learner"
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import repeat

import torch
from fastai.callback.core import CancelEpochException
from fastai.callback.schedule import minimum  # its module gives the Learner fit_one_cycle and lr_find
from fastai.learner import Learner
from fastai.torch_core import to_detach
from fastcore.basics import GetAttr
from fastcore.foundation import L

from ..core.errors import InputError
from ..core.ranks import world
from ..fill.inpainter import Inpainter
from ..judge.metrics import default_metrics
from ..judge.plain import inpaint_metric
from ..judge.show import show_latent_damage
from ..models.load import starting_model
from .adam import Adam
from .callback.distributed import Distributed
from .callback.fit import FitCallback
from .callback.terms import LossTerms
from .groups import HeldGroups, parameter_groups
from .log import lines, without_bars
from .losses import InpaintLoss, PixelL1, inpaint_loss
from .step import Step, StepLog
from .summary import summary


class Again(GetAttr):
    "The loader `dl`, whose batches are all its first one"
    _default = "dl"
    def __init__(self, dl):
        self.dl = dl  # of fastai, or a list of batches
        self.batch = dl.one_batch() if hasattr(dl, "one_batch") else next(iter(dl))

    def __len__(self): return len(self.dl)
    def __iter__(self): return repeat(self.batch, len(self.dl))


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
    summary = summary

    @property
    def loss_func(self): return self._loss_func
    @loss_func.setter
    def loss_func(self, loss): self._loss_func = inpaint_loss(loss)

    @property
    def metrics(self): return self._metrics
    @metrics.setter
    def metrics(self, metrics): self._metrics = L(metrics).map(inpaint_metric)

    def freeze_to(self, n):
        "Groups of parameters before the `n`th stand still: no gradients, no optimizer step"
        super().freeze_to(n)
        for group in self.opt.param_lists[:self.opt.frozen_idx]:
            for p in group: p.grad = None  # of zeros, one would still move the weights by their decay

    def lr_find(self, *args, suggest_funcs=(minimum,), **kwargs):
        """As fastai's, on one batch again and again; suggests a tenth of the rate where the loss is lowest.

        Zero-initialised control and a refiner that begins as the identity change little in a hundred steps,
        less than batches differ; and a valley in that noise, as fastai suggests, is anywhere."""
        loaders = self.dls.loaders
        train, loaders[0] = loaders[0], Again(loaders[0])
        try: return super().lr_find(*args, suggest_funcs=suggest_funcs, **kwargs)
        finally: loaders[0] = train

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
            with lines(self), ExitStack() as self._contexts: yield
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

    def validation_context(self, cbs=None, inner=False):
        contexts = super().validation_context(cbs, inner)
        contexts.append(without_bars(self))
        return contexts

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
        # without targets, as of `summary`, there is nothing to learn from
        self.step = Step(*(y.as_subclass(torch.Tensor) for y in self.yb)) if self.yb else None

    def _do_one_batch(self):
        with self.forward_context():
            self.pred = self.wrapped(self.model)(*self.xb)
            self("after_pred")
            if not self.yb: return
            self.step.prediction = self.pred
            self.loss_grad = (self.objective or self.loss_func)(self.step)
        self.loss = self.loss_grad.clone()
        self("after_loss")
        if self.training: self._do_grad_opt()


def inpaint_learner(dls, model=None, loss=None, metrics=None, cbs=None, lr=2e-3, wd=0., init=None,
                    loss_func=None, **kwargs):
    """An `InpaintLearner` with Adam, every loss term in its log, and the groups of `parameter_groups`.

    `dls` give xb = (masked, mask), yb = (image, mask); `loss`, or `loss_func` as fast.ai has it, is what
    `inpaint_loss` takes, by default L1 in pixels; `metrics` are what `inpaint_metric` takes. With `init`,
    training goes on from the model of that file, or "sample", as `starting_model` takes it; `model`
    then only says whether the mask is to reach it by mask control. In one of several processes it has a
    `Distributed` callback, if not in `cbs`. Raises InputError for two losses, and what `starting_model`,
    `inpaint_loss` and `inpaint_metric` raise."""
    if init: model = starting_model(init, model)
    if model is None: raise InputError("a learner needs a model, or init, a file to go on from")
    if loss is not None and loss_func is not None:
        raise InputError("loss and loss_func are two names of one thing: give one of them")
    if loss is None: loss = PixelL1() if loss_func is None else loss_func
    # the optimizer holds all parameters from the start, also those that a schedule thaws later
    kwargs = dict(opt_func=partial(Adam, sqr_mom=.99, eps=1e-8), splitter=parameter_groups,
                  train_bn=False) | kwargs
    if metrics is None: metrics = default_metrics()
    cbs = [LossTerms(), HeldGroups(), *(cbs or [])]
    if world() > 1 and not any(isinstance(cb, Distributed) for cb in cbs): cbs.append(Distributed())
    return InpaintLearner(dls, model, loss, metrics=metrics, cbs=cbs, lr=lr, wd=wd, **kwargs)
