"The latent loss: compare features before they are decoded (thesis, § 4.1.3)"
from contextlib import contextmanager
from copy import deepcopy

import torch

from ...core.errors import InputError
from ..latent_distances import latent_distance
from .fit import FitCallback


class LatentLoss(FitCallback):
    """A distance of the weight `weight` between the refined latent and the encoder's latent of the image.

    In place of pixel terms, or with `pixel` beside them; else training never decodes. `known` and `missing`
    weigh latent pixels by the hole behind them. `distance` is one of `DISTANCES`; `iterates` is the factor by
    which each earlier iterate of a refiner counts less, 0 for the last alone. The target's encoder and the
    decoder that "decoder" measures by are the first fit's. Raises InputError where these do not fit."""
    def __init__(self, weight=1., known=1., missing=1., pixel=False, distance="l1", iterates=0.):
        self.term = latent_distance(distance, weight, known, missing, iterates)
        self.pixel, self.target_encoder = pixel, None

    def change_terms(self, terms): return [*terms, self.term] if self.pixel else [self.term]

    @contextmanager
    def during_fit(self):
        found, refiner = (self.target_encoder, self.term.metric), self.model.refiner
        if self.term.iterates and not hasattr(refiner, "iterates"):
            raise InputError(f"iterates={self.term.iterates}: this model's refiner has no iterates; expected "
                             "one that applies its blocks again and again, or iterates=0")
        exploring = self.learn.finding_lr
        if found[0] is None: self.target_encoder = deepcopy(self.model.encoder).requires_grad_(False)
        self.target_encoder.to(next(self.model.parameters()).device).eval()
        self.model.decode_in_training = self.pixel
        try:
            with refiner.register_forward_hook(self._keep_latent): yield
        finally:
            self.model.decode_in_training = True
            if self.term.iterates: refiner.iterates = None
            # training may start from other weights
            if exploring: self.target_encoder, self.term.metric = found

    def _keep_latent(self, refiner, inputs, latent): self.learn.step.latent = latent

    def before_batch(self):
        if not self.in_fit: return  # validation outside of a fit judges pixels
        step, pad = self.learn.step, self.model.pad
        with torch.no_grad(), self.learn.forward_context():
            step.target = self.target_encoder(pad(step.image)).float()
        step.latent_mask = pad(step.mask)
        self.term.prepare(self.model, step.target)
        if self.term.iterates: self.model.refiner.iterates = step.iterates  # which begins each step empty

    def state_dict(self):
        metric = {} if self.term.metric is None else {"metric": self.term.metric}
        return self.target_encoder.state_dict() | metric

    def load_state_dict(self, state):
        self.term.metric = state.get("metric")
        self.target_encoder.load_state_dict({k: v for k, v in state.items() if k != "metric"})
