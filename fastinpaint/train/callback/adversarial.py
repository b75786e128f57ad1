"Adversarial training (LaMa, § 3.2): a discriminator learns beside the model, on the same batches"
from contextlib import contextmanager
from copy import deepcopy

import torch
import torch.nn.functional as F
from fastai.callback.core import CancelBackwardException
from torch.nn.utils import clip_grad_norm_

from ...core.errors import InputError
from ...models.discriminator import PatchGAN, r1_penalty
from ..losses import Adversarial, FeatureMatching
from .fit import FitCallback
from .gradient_share import GradientShare


class AdversarialTraining(FitCallback):
    """Train a discriminator beside the model, and add its opinion to the model's loss.

    `discriminator`, by default a `PatchGAN` as wide as the model, learns by an Adam of rate `lr` from the
    non-saturating loss and `r1` times the R1 penalty, every `r1_every` steps and then so many times larger,
    in float32; the model from terms of weight `weight` and `feature_matching`. Both losses come of one pass
    each of prediction and image, each gradient for one network alone, of norm `clip` at most (None: any).
    Raises InputError for negative weights or predictions that are no images, Diverged for NaN losses."""
    order = 30  # after autocast's casts (10) and GradientAccumulation (6); before LossTerms (40)
    betas = .9, .999  # of the discriminator's Adam
    clipped = "generator", "discriminator"
    def __init__(self, discriminator=None, weight=10., feature_matching=100., r1=1e-3, r1_every=1, lr=1e-4,
                 clip=1.):
        if r1 < 0 or r1_every < 1:
            raise InputError(f"the R1 penalty has {r1=}, at least 0, and {r1_every=}, at least 1")
        self.discriminator, self.lr_d, self.r1, self.r1_every = discriminator, lr, r1, r1_every
        self.clip = float("inf") if clip is None else clip
        self.terms = self.new_terms(weight, feature_matching)
        self.steps, self.health = 0, {}

    def after_create(self):
        if self.discriminator is None: self.discriminator = self.new_discriminator(self.model.config)
        self.opt_d = torch.optim.Adam(self.discriminator.parameters(), self.lr_d, self.betas)

    def new_discriminator(self, config): return PatchGAN(config["width"])
    def new_terms(self, weight, matching): return [Adversarial(weight), FeatureMatching(matching)]
    def losses(self, real, fake, hole): return discriminator_losses(real, fake, hole)

    def pair(self, step):
        """What the discriminator is shown: real and fake `[B, C, h, w]`, and the fake's mask `[B, 1, H, W]`.

        Raises InputError where the step has nothing of the kind."""
        if self.pred.shape != step.image.shape:
            raise InputError("the discriminator judges images, the model predicts "
                             f"{list(self.pred.shape)}: keep the decoder in training, as "
                             "LatentLoss(pixel=True) does")
        return step.image, self.pred, step.mask

    def change_terms(self, terms): return [*terms, *(t for t in self.terms if t.weight)]

    @contextmanager
    def during_fit(self):
        self.discriminator.to(next(self.model.parameters()).device)
        before = deepcopy(self.state_dict()) if self.learn.finding_lr else None
        yield
        if before: self.load_state_dict(before)

    def after_pred(self):
        if not self.in_fit: return
        step = self.learn.step
        real, fake, step.fake_hole = self.pair(step)
        self.penalised = self.training and self.r1 > 0 and self.steps % self.r1_every == 0
        self.real = real.detach().requires_grad_(self.penalised)
        self.discriminator.train(self.training)
        discriminator = self.learn.wrapped(self.discriminator)
        step.real_logits, step.real_features = discriminator(self.real)
        step.fake_logits, step.fake_features = discriminator(fake)

    def before_backward(self):
        "Both backward passes through the graph they share, each for its own network's parameters"
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.learn.loss_grad.backward(inputs=trained, retain_graph=True)
        loss = self._discriminator_loss()
        accumulated = getattr(self.learn, "gradient_accumulation", None)
        scale = len(self.real)/accumulated.n_acc if accumulated else 1
        (loss*scale).backward(inputs=list(self.discriminator.parameters()))
        raise CancelBackwardException

    def _discriminator_loss(self):
        step = self.learn.step
        real, fake = step.real_logits.float(), step.fake_logits.float()
        hole = F.interpolate(step.fake_hole, fake.shape[-2:], mode="nearest")
        losses = self.losses(real, fake, hole)
        if self.penalised: losses["r1"] = self.r1*self.r1_every*self._r1_penalty(step.real_logits)
        for name, value in losses.items():
            if not value.isfinite(): self.stop(f"discriminator's {name} is {value.item()}")
        self.health |= {f"d_{k}": v.detach() for k, v in losses.items()}
        self.health |= logit_statistics(real.detach(), fake.detach(), hole)
        return sum(losses.values())

    def _r1_penalty(self, logits):
        if logits.dtype == torch.float32: return r1_penalty(logits, self.real)
        with torch.autocast(self.real.device.type, enabled=False):
            return r1_penalty(self.discriminator(self.real)[0], self.real)

    def before_step(self):  # after GradientAccumulation has let the step happen
        for name, network in ("generator", self.model), ("discriminator", self.discriminator):
            clip = self.clip if name in self.clipped else float("inf")
            self.health[f"grad_norm_{name}"] = clip_grad_norm_(network.parameters(), clip)

    def after_step(self):
        self.opt_d.step()
        self.opt_d.zero_grad()
        self.steps += 1

    def before_train(self): self.opt_d.zero_grad()  # of an interrupted batch

    def after_batch(self):
        if self.training: self.step_log.health.write(self.health)
        self.real = None

    def state_dict(self):
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self.opt_d.state_dict(),
                "steps": self.steps}

    def load_state_dict(self, state):
        self.discriminator.load_state_dict(state["discriminator"])
        self.opt_d.load_state_dict(state["optimizer"])
        self.steps = state["steps"]


def adversarial_callbacks(settings):
    "The callbacks that `AdversarialSettings` ask for"
    discriminator, every = PatchGAN(settings.width_d) if settings.width_d else None, settings.grad_shares
    gan = AdversarialTraining(discriminator, r1_every=settings.r1_every, lr=settings.lr_d,
                              clip=settings.clip or None)
    return [gan, GradientShare(every)] if every else [gan]


def discriminator_losses(real, fake, hole):
    "Of logits `[B, 1, h, w]`, non-saturating: patches of predictions are fake where the resized `hole` is 1"
    return {"real": F.softplus(-real).mean(),
            "fake": (hole*F.softplus(fake) + (1 - hole)*F.softplus(-fake)).mean()}


def logit_statistics(real, fake, hole):
    "Mean logits of images and of predictions inside the hole; the discriminator's accuracy on both"
    share = hole.sum().clamp_min(1)
    return {"d_real_logit": real.mean(), "d_fake_logit": (fake*hole).sum()/share,
            "d_real_accuracy": (real > 0).float().mean(),
            "d_fake_accuracy": ((fake < 0)*hole).sum()/share}
