"Training a plain autoencoder around its working point"
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ...models.folded import gain_and_bias
from .fit import FitCallback


class Centre(FitCallback):
    """Trains an autoencoder that `shift_to_pca` has started as if its channels had the mean zero.

    Each carries a constant of many standard deviations, which passes it through ReLU; a step of the weights
    would move these constants far more than what they carry. So weights learn from deviations alone: the
    constants' part is taken off their gradients, and what a step does to the constants is taken back in
    BatchNorm's running means, the kernels of the decoder's constant channels and the bias of its head.
    BatchNorm keeps its statistics. A model without constant channels trains as ever."""
    order = 8  # after Reconstruct (0), which starts the model; before GradientClip (11)
    def __init__(self): self.means = None

    @contextmanager
    def during_fit(self):
        yield
        self.means = None

    def before_train(self):
        encoder, decoder = self.model.encoder.stages, self.model.decoder.stages
        self.active = self.in_fit and all(ends_constant(s.conv) for s in (*encoder[1:], *decoder[:-1]))
        if not self.active: return
        for m in self.model.modules():
            if isinstance(m, _BatchNorm): m.eval()
        if self.means is not None: return
        # of what each convolution sees: BatchNorm's bias is the mean of what it makes
        self.means = [torch.full_like(encoder[0].conv.weight[0, :, 0, 0], .5)]
        self.means += [stage.bn.bias.detach().relu() for stage in (*encoder, *decoder)]
        for mean in self.means[len(encoder):-1]: mean[-1] = 0  # the constant, which makes up for the others

    @torch.no_grad()
    def before_step(self):
        if not self.active: return
        encoder, decoder, head = self._parts()
        for stage, mean in encoder:
            gain, _ = gain_and_bias(stage.bn)
            stage.conv.weight.grad -= (gain*stage.bn.bias.grad)[:, None, None, None]*mean[:, None, None]
        for stage, mean in decoder:
            grad = stage.conv.weight.grad
            grad -= mean[:, None, None, None]*grad[-1].clone()
        head.weight.grad -= head.bias.grad[:, None, None, None]*self.means[-1][:, None, None]
        for stage, _ in (*encoder[1:], *decoder[:-1]): hold_last(stage)
        self.before = [conv.weight.clone() for conv in self._convs()]

    @torch.no_grad()
    def after_step(self):
        if not self.active: return
        encoder, decoder, head = self._parts()
        steps = iter(conv.weight - before for conv, before in zip(self._convs(), self.before, strict=True))
        for stage, mean in encoder: stage.bn.running_mean += next(steps).sum((2, 3)) @ mean
        for stage, mean in decoder: stage.conv.weight[-1] -= torch.einsum("c,cokl->okl", mean, next(steps))
        head.bias -= next(steps).sum((2, 3)) @ self.means[-1]

    def _parts(self):
        "Stages of the encoder and of the decoder, each with the mean of what it sees, and the head"
        encoder, decoder = self.model.encoder.stages, self.model.decoder.stages
        pairs = [*zip((*encoder, *decoder), self.means[:-1], strict=True)]
        return pairs[:len(encoder)], pairs[len(encoder):], self.model.decoder.head

    def _convs(self):
        encoder, decoder, head = self._parts()
        return [*(stage.conv for stage, _ in (*encoder, *decoder)), head]

    def state_dict(self): return {"means": self.means}
    def load_state_dict(self, state): self.means = state["means"]


def by_output(conv, weight):
    "A view of `weight`, shaped as that of `conv`, output channels first"
    return weight.transpose(0, 1) if isinstance(conv, torch.nn.ConvTranspose2d) else weight


def ends_constant(conv):
    "Whether the kernels of the last output channel are all zero"
    return not by_output(conv, conv.weight)[-1].any()


def hold_last(stage):
    "No gradient for the last channel, which is constant"
    by_output(stage.conv, stage.conv.weight.grad)[-1] = 0
    for p in (stage.bn.weight, stage.bn.bias, stage.conv.bias):
        if p is not None: p.grad[-1] = 0
