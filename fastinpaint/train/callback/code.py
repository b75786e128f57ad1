"Training the code of an autoencoder of diffusers: a Gaussian near the normal one, or vectors of a codebook"
from contextlib import contextmanager

import torch

from ...core.errors import InputError
from ...core.together import take_from_main
from ...models.adapters import CodeDecoder, Mode
from ...models.latent_net import describe_autoencoder
from ..losses import Term
from .fit import FitCallback

RENEWED = 100  # steps after which codes that nothing was nearest to begin anew


class CodeLoss(Term):
    "What the code costs, as `Code` says"
    name = "code"
    def forward(self, step): return step.code_loss


class Code(FitCallback):
    """Beside the reconstruction, trains the code of a `new_autoencoder`; its latents end with variance 1.

    "kl" draws latents from the encoder's Gaussians, whose divergence from the normal one has the weight `kl`
    (Kingma & Welling 2014). "vq" pulls latents and nearest codes together with the weight `vq` (van den Oord
    et al. 2017); codes start as latents, and again whenever for `RENEWED` steps nothing was nearest to them.
    Raises InputError for a network without such a code."""
    def __init__(self, kl=1e-6, vq=1.):
        self.weights, self.steps, self.used, self.std = (kl, vq), 0, None, None

    def after_create(self):
        modes = [m for m in self.model.encoder.modules() if isinstance(m, Mode)]
        self.quantize = self.model.decoder.quantize if isinstance(self.model.decoder, CodeDecoder) else None
        if not modes and self.quantize is None:
            raise InputError("this network has no code to train: take one of new_autoencoder")
        self.gaussian = modes[0] if modes else None
        if self.quantize is not None: self.quantize.requires_grad_()
        self.term = CodeLoss(self.weights[self.gaussian is None])

    def change_terms(self, terms): return [*terms, self.term]

    @contextmanager
    def during_fit(self):
        if self.gaussian: hooks = [self.gaussian.register_forward_hook(self._draw)]
        else:
            hooks = [self.quantize.register_forward_pre_hook(self._renew),
                     self.quantize.register_forward_hook(self._keep_loss)]
        try: yield
        finally:
            for hook in hooks: hook.remove()
            if self.std is not None and not self.learn.finding_lr: describe_autoencoder(self.model, self.std)
            self.std = None

    def _measure(self, latents):
        if self.training: self.std = latents.detach().float().std().item()

    def _draw(self, module, inputs, mean):
        _, log_variance = inputs[0].chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        self._measure(mean)
        self.learn.step.code_loss = (mean.square() + log_variance.exp() - 1 - log_variance).mean()/2
        if self.training: return mean + (log_variance/2).exp()*torch.randn_like(mean)

    def _renew(self, module, inputs):
        self._measure(inputs[0])
        if not self.training: return
        weight = module.embedding.weight
        if self.used is None: self.used = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
        if self.steps % RENEWED == 0:
            latents = inputs[0].detach().movedim(1, -1).flatten(0, -2)
            unused = (~self.used).nonzero()[:, 0]
            chosen = torch.randint(len(latents), unused.shape)
            with torch.no_grad(): weight[unused] = latents[chosen].to(weight)
            take_from_main([weight])
            self.used.zero_()
        self.steps += 1

    def _keep_loss(self, module, inputs, output):
        _, self.learn.step.code_loss, (*_, nearest) = output
        if self.training: self.used[nearest] = True

    def state_dict(self): return {"steps": self.steps, "used": self.used}
    def load_state_dict(self, state): self.steps, self.used = state["steps"], state["used"]
