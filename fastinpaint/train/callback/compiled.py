"Training steps by `torch.compile`, part by part"
import os
import shutil
from contextlib import contextmanager

import torch
from torch import nn

from ...core.errors import InputError
from .fit import FitCallback
from .latent import LatentLoss

KINDS = 256  # of modules, layouts and what trains, each compiled once: torch gives up after 8


class Compiled(FitCallback):
    """Compiles stages of encoder and decoder and blocks of the refiner for the time of a fit.

    On GPUs they become CUDA graphs. Weights keep their names. Validation, and batches of another size than
    the first, run as they are, so that nothing is compiled again; what was stays in torch's cache on disk.
    Raises InputError without a C++ compiler."""
    order = -15  # before callbacks that run networks on a batch
    def __init__(self):
        if not compiler():
            raise InputError("torch.compile needs a C++ compiler: install g++, or let CXX name another")
        self.size, self.modules, self.gradients = None, [], {}

    @contextmanager
    def during_fit(self):
        with torch._dynamo.config.patch(cache_size_limit=KINDS):
            try: yield
            finally:
                torch.compiler.set_stance("default")
                for module in self.modules: module._compiled_call_impl = None
                self.size, self.modules, self.gradients = None, [], {}

    def before_batch(self):
        if not self.in_fit: return
        size = self.xb[0].shape
        if self.training and self.size is None:  # by now every callback has made its networks
            self.size = size
            self._compile()
        usual = self.training and size == self.size
        torch.compiler.set_stance("default" if usual else "force_eager")
        if usual: torch.compiler.cudagraph_mark_step_begin()

    def before_step(self):
        "Gradients, which the optimizer keeps, leave the memory of CUDA graphs: the next step writes to it"
        for p in self.model.parameters() if self.in_fit else ():
            if p.grad is not None and p.grad is not self.gradients.get(p):
                p.grad = self.gradients[p] = p.grad.clone()

    def _compile(self):
        targets = [cb.target_encoder for cb in self.learn.cbs if isinstance(cb, LatentLoss)]
        parts = *targets, self.model.encoder, self.model.refiner, self.model.decoder
        self.modules = [module for part in parts for module in regions(part)]
        mode = "reduce-overhead" if self.xb[0].is_cuda else "default"
        for module in self.modules: module.compile(mode=mode, dynamic=False)


def compiler(): return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


def regions(part):
    "What of a network is compiled at once: each of its `stages` or `blocks`, and all that stands beside them"
    if isinstance(part, nn.Sequential | nn.ModuleList) or hasattr(part, "stages") or hasattr(part, "blocks"):
        return [m for child in part.children() for m in regions(child)]
    return [] if type(part) in (nn.Conv2d, nn.Identity) else [part]
