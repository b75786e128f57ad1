"bfloat16 autocast on whatever device the data is on"
import torch
from fastai.callback.core import Callback
from fastai.torch_core import to_float


class BFloat16(Callback):
    "Forward pass and losses under bfloat16 autocast; fastai's own `to_bf16` knows CUDA only. Fourier units stay in fp32."
    order = 10  # after the casts to plain tensors (CastToTensor, 9)

    def before_batch(self):
        self.autocast = torch.autocast(self.dls.device.type, torch.bfloat16)
        self.autocast.__enter__()

    def after_pred(self): self.learn.pred = to_float(self.pred)

    def after_loss(self): self.autocast.__exit__(None, None, None)
