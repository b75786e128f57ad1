"bfloat16 autocast on whatever device the data is on"
from contextlib import ExitStack
from functools import partial

import torch
from fastai.callback.core import Callback
from fastai.torch_core import to_float


class BFloat16(Callback):
    "Forward pass and losses under bfloat16 autocast; fastai's own `to_bf16` knows CUDA only. Fourier units stay in fp32."
    order = 10  # after the casts to plain tensors (CastToTensor, 9)

    def before_fit(self): self.learn._do_one_batch = partial(self._one_batch, self.learn)

    def _one_batch(self, learn):
        with ExitStack() as self.autocast:  # so that an interrupted batch leaves autocast too
            self.autocast.enter_context(torch.autocast(next(learn.model.parameters()).device.type, torch.bfloat16))
            type(learn)._do_one_batch(learn)

    def after_pred(self): self.learn.pred = to_float(self.pred)

    def after_loss(self): self.autocast.close()  # before the backward pass, which follows the types of the forward pass

    def after_fit(self): self.learn.__dict__.pop("_do_one_batch", None)
