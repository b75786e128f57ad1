"Training an autoencoder with data made for inpainting"
from itertools import islice

import torch
from fastai.callback.core import Callback

from ...core.ranks import world
from ...core.together import gathered, take_from_main
from ...models.pca import start_at_pca


class Reconstruct(Callback):
    """Shows the model the whole image and asks for all of it back (thesis, § 4.1.2).

    With `start` it begins at the principal components of the first `images` training photographs."""
    def __init__(self, images=128, start=True): self.images, self.begun = images, not start

    def before_train(self):
        # not in before_fit, which validation calls as well, of a model that has been trained
        if not self.begun:
            batches = -(-self.images//(self.dls.train.bs*world()))
            images = torch.cat([gathered(b[2]) for b in islice(self.dls.train, batches)])
            start_at_pca(self.model, images[:self.images])
            take_from_main(self.model.state_dict().values())  # to the last bit
            self.begun = not self.learn.finding_lr  # which undoes its training, and so this start

    def before_batch(self):
        if (step := self.learn.step) is None: return  # a batch without targets
        step.mask = torch.ones_like(step.mask)
        self.learn.xb = self.learn.yb = step.image, step.mask

    def state_dict(self): return {"begun": self.begun}
    def load_state_dict(self, state): self.begun = state["begun"]
