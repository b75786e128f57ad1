"The latent loss: compare features before they are decoded (thesis, § 4.1.3)"
from contextlib import contextmanager
from copy import deepcopy

import torch

from ..losses import LatentL1
from .fit import FitCallback


class LatentLoss(FitCallback):
    """L1 of the weight `weight` between the refined latent and the encoder's latent of the image.

    In place of pixel terms, or with `pixel` beside them; else training never decodes. `known` and `missing`
    weigh latent pixels by the hole behind them. The target's encoder is the first fit's."""
    def __init__(self, weight=1., known=1., missing=1., pixel=False):
        self.term, self.pixel, self.target_encoder = LatentL1(weight, known, missing), pixel, None

    def change_terms(self, terms): return [*terms, self.term] if self.pixel else [self.term]

    @contextmanager
    def during_fit(self):
        found, exploring = self.target_encoder, self.learn.finding_lr
        if found is None: self.target_encoder = deepcopy(self.model.encoder).requires_grad_(False)
        self.target_encoder.to(next(self.model.parameters()).device).eval()
        self.model.decode_in_training = self.pixel
        try:
            with self.model.refiner.register_forward_hook(self._keep_latent): yield
        finally:
            self.model.decode_in_training = True
            if exploring: self.target_encoder = found  # training may start from other weights

    def _keep_latent(self, refiner, inputs, latent): self.learn.step.latent = latent

    def before_batch(self):
        if not self.in_fit: return  # validation outside of a fit judges pixels
        step, pad = self.learn.step, self.model.pad
        with torch.no_grad(): step.target = self.target_encoder(pad(step.image))
        step.latent_mask = pad(step.mask)

    def state_dict(self): return self.target_encoder.state_dict()
    def load_state_dict(self, state): self.target_encoder.load_state_dict(state)
