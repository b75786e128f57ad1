"The latent loss: compare features before they are decoded (thesis, § 4.1.3)"
from copy import deepcopy

import torch
from fastai.callback.core import Callback

from ...kernels import masked_l1
from ..losses import MaskedL1


class LatentL1(MaskedL1):
    "L1 between the refined latent and the ground truth's, both `[B, C, h, w]`, which `LatentLoss` puts here for each batch"
    name = "latent_l1"
    latent = target = latent_mask = None

    def forward(self, pred, image, mask):
        return masked_l1(self.latent, self.target, self.latent_mask, self.known, self.missing)


class LatentLoss(Callback):
    """L1 between the refined latent and the encoder's latent of the ground truth, `|refine(E(masked, mask)) - E(image)|`.

    In place of the Learner's pixel terms, or with `pixel=True` added to them. Without pixel terms the decoder does not run in
    training at all; validation decodes, for the metrics. `known` and `missing` weigh latent pixels by how much hole
    lies behind them. The target comes from the encoder as it stood when training began, without gradients.
    """
    def __init__(self,
        weight=1.,   # Weight of the term; the thesis takes 1e-4 beside LaMa's other losses
        known=1.,    # Weight outside the hole
        missing=1.,  # Weight inside the hole
        pixel=False  # Keep the Learner's pixel terms, and so decode in training
    ):
        self.term, self.pixel = LatentL1(weight, known, missing), pixel
        self.hook, self.begun = None, False

    def before_fit(self):
        if self.hook: self.after_fit()  # an interrupted fit did not get there
        loss = self.learn.loss_func
        self.replaced = [] if self.pixel else loss.terms
        loss.terms = [*(loss.terms if self.pixel else []), self.term]
        self.model.decode_in_training = self.pixel
        if not self.begun: self.target_encoder = deepcopy(self.model.encoder).requires_grad_(False)
        self.target_encoder.to(next(self.model.parameters()).device).eval()
        self.hook = self.model.refiner.register_forward_hook(self._keep_latent)

    def before_train(self):
        self.begun = True
        if self.hook is None: self.before_fit()  # a validation in the midst of training ends with after_fit

    def _keep_latent(self, refiner, inputs, latent): self.term.latent = latent

    def before_batch(self):
        if self.hook is None: return  # validation outside of fit judges pixels
        image, mask = self.yb
        with torch.no_grad(): self.term.target = self.target_encoder(self.model.pad(image))
        self.term.latent_mask = self.model.pad(mask)

    def after_batch(self): self.term.latent = self.term.target = self.term.latent_mask = None

    def after_fit(self):
        self.hook = self.hook.remove()
        self.learn.loss_func.terms = self.replaced + [t for t in self.learn.loss_func.terms if t is not self.term]
        self.model.decode_in_training = True

    def state_dict(self): return self.target_encoder.state_dict()

    def load_state_dict(self, state): self.target_encoder.load_state_dict(state)
