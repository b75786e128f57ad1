"Training in several processes, each on its rows of every batch, as if it were one"
import signal
import threading
import warnings
from contextlib import contextmanager

import torch
from fastai.callback.progress import ProgressCallback
from fastai.learner import AvgLoss, AvgMetric
from fastcore.basics import noop
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ...core import together
from ...core.errors import InputError
from ...core.ranks import is_main, rank, world
from ...data.loaders import InpaintDL
from .fit import FitCallback

# kernels of one pixel, which ChannelsLast has touched, have the same bytes in either layout
warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")


class Distributed(FitCallback):
    """Trains in step with the processes that torchrun or `accelerate launch` started; alone it does nothing.

    N processes of batch B see the batches of one of N·B and end with equal weights. `Learner.wrapped` makes
    `DistributedDataParallel` of the model and of a discriminator while a fit lasts; the Learner's model stays
    what it is. BatchNorm normalises by each process's own batch, with `sync_bn` by all of them; its running
    statistics are the mean over processes either way. `unused`: parameters besides those of
    `InpaintNet.resting` take no part in some steps. Raises InputError for `sync_bn` without GPUs, in
    `lr_find`, and where another process has ended."""
    order = -8  # after TrainEvalCallback (-10), which moves the model; before all that copies from the model
    def __init__(self, sync_bn=False, unused=False):
        self.sync_bn, self.unused, self.networks, self.stopping = sync_bn, unused, {}, False

    def after_create(self):
        if is_main(): return
        self.learn.logger = noop
        self.learn.remove_cb(ProgressCallback)

    @contextmanager
    def during_fit(self):
        if world() == 1:
            yield
            return
        device = next(self.model.parameters()).device
        self._check(device)
        together.start(device)
        together.take_from_main(self.model.state_dict().values())
        loaders = [dl for dl in self.dls.loaders if isinstance(dl, InpaintDL)]
        for dl in loaders: dl.share = rank(), world()
        self.learn.wrapped, self.stopping = self._wrapped, False
        try:
            with self._ctrl_c(), together.others_answer(): yield
        finally:
            self.learn.wrapped = self.learn.plain
            for module in self.networks: set_batchnorm(module, nn.SyncBatchNorm, nn.BatchNorm2d)
            self.networks = {}
            for dl in loaders: dl.share = 0, 1

    def _check(self, device):
        if self.learn.finding_lr:
            raise InputError(f"lr_find runs in one process, not in {world()}: find the learning rate first")
        if self.sync_bn and device.type != "cuda":
            raise InputError(f"--sync-bn (sync_bn=True) on a {device}: torch has it for GPUs alone")

    def _wrapped(self, module):
        "What runs a batch through `module`: its DDP, made anew when another set of parameters trains"
        if not self.training: return module
        trained = [id(p) for p in module.parameters() if p.requires_grad]
        if self.networks.get(module, [None])[0] != trained:
            if self.sync_bn: set_batchnorm(module, nn.BatchNorm2d, nn.SyncBatchNorm)
            self.networks[module] = trained, self._ddp(module) if trained else module
        ddp = self.networks[module][1]
        return self._without_sync(ddp) if trained and self._accumulates() else ddp

    def _ddp(self, module):
        resting = getattr(module, "resting", list)()
        unused = self.unused or any(p.requires_grad for part in resting for p in part.parameters())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 renames an argument that 2.6 has
            return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=unused)

    def _accumulates(self):
        "Whether GradientAccumulation will let no step follow on this batch"
        cb = getattr(self.learn, "gradient_accumulation", None)
        return cb is not None and cb.count + len(self.xb[0]) < cb.n_acc

    def _without_sync(self, ddp):
        def run(*x):
            with ddp.no_sync(): return ddp(*x)
        return run

    def after_loss(self):
        if world() == 1 or not (self.in_fit and self.training): return
        # one process alone must not stop, for a loss that is not finite or for Ctrl-C: the others would wait
        loss = self.learn.loss.float()
        self.learn.loss, stop = together.mean(torch.stack([loss, torch.full_like(loss, self.stopping)]))
        if stop: raise KeyboardInterrupt

    def after_step(self): self._average_statistics()
    def after_train(self): self._average_statistics()  # of batches that GradientAccumulation made no step of

    def _average_statistics(self):
        "BatchNorm's running statistics are of all processes, so that all have one model, EMA's included"
        layers = [m for module in self.networks for m in module.modules() if isinstance(m, _BatchNorm)]
        found = [b for m in layers if m.training and not isinstance(m, nn.SyncBatchNorm)
                 for b in (m.running_mean, m.running_var)]
        if not found: return
        means = together.mean(torch.cat(found))
        for b, mean in zip(found, means.split([len(b) for b in found]), strict=True): b.copy_(mean)

    def after_validate(self):
        "Sums of fastai's own averages; `InpaintMetric`s look after themselves"
        if world() == 1 or not self.in_fit: return
        for m in (self.recorder.loss, *self.learn.metrics):
            if isinstance(m, AvgLoss | AvgMetric): m.total, m.count = together.total([m.total, m.count])

    @contextmanager
    def _ctrl_c(self):
        "In training, Ctrl-C ends all processes after the same step"
        def stop(*_):
            if self.stopping or not self.training: raise KeyboardInterrupt
            self.stopping = True
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, stop)
        try: yield
        finally: signal.signal(signal.SIGINT, before)


def set_batchnorm(module, old, new):
    "Turn `module`'s layers of exactly the class `old` into `new`, in place: others may hold on to a layer"
    for m in module.modules():
        if type(m) is not old: continue
        m.__class__ = new
        m.process_group = None  # of SyncBatchNorm: all processes
