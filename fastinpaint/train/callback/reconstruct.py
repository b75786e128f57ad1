"Training an autoencoder with data made for inpainting"
import torch
from fastai.callback.core import Callback

from ...models.pca import start_at_pca
from ..losses import InpaintLoss, PixelMSE


class Reconstruct(Callback):
    """Shows the model the whole image and asks for all of it back, with a squared error (thesis, § 4.1.2).

    Losses and metrics then judge the reconstruction, as if all of the image were a hole.
    A model with linear paths starts at the principal components of the first `batches` training batches.
    """
    def __init__(self, batches=16): self.batches, self.begun = batches, False

    def before_fit(self): self.learn.loss_func = InpaintLoss(PixelMSE())

    def before_train(self):
        # not in before_fit, which validation calls as well, of a model that has been trained
        if not self.begun and self.model.encoder.stages[0].linear is not None: self._start_at_pca()
        self.begun = True

    def _start_at_pca(self):
        images = [b[2] for _, b in zip(range(self.batches), self.dls.train, strict=False)]
        start_at_pca(self.model, torch.cat(images))

    def before_batch(self):
        image, mask = self.yb
        self.learn.xb = self.learn.yb = (image, torch.ones_like(mask))

    def state_dict(self): return {"begun": self.begun}

    def load_state_dict(self, state): self.begun = state["begun"]
