"bfloat16 autocast on whatever device the data is on"
from contextlib import nullcontext
from functools import partial

import torch
from fastai.callback.core import Callback
from fastai.torch_core import to_float


class BFloat16(Callback):
    "Forward pass and losses under bfloat16 autocast; fastai's `to_bf16` knows CUDA only"
    order = 10  # after the casts to plain tensors (CastToTensor, 9)
    def before_fit(self):
        device = next(self.model.parameters()).device.type
        self.learn.forward_context = partial(torch.autocast, device, torch.bfloat16)

    def after_pred(self): self.learn.pred = to_float(self.pred)

    def after_fit(self):
        if not self.learn.fit_callbacks: self.learn.forward_context = nullcontext
