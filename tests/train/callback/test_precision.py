import pytest
import torch
from fastai.callback.core import Callback

from fastinpaint.models.ffc import FourierUnit
from fastinpaint.models.lama import ConvBlock
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.callback.precision import BFloat16

METHODS = [lambda: [], lambda: [FreezeSchedule(), LatentLoss()]]


class Types(Callback):
    "Notes what types the networks' parts compute in"
    def before_fit(self):
        self.convs, self.fourier, self.backward = set(), set(), set()
        for m in self.model.modules():
            if isinstance(m, ConvBlock): m.register_forward_hook(lambda _, i, y: self.convs.add(y.dtype))
            if isinstance(m, FourierUnit):
                m.conv.register_forward_hook(lambda _, i, y: self.fourier.add(y.dtype))

    def before_backward(self): self.backward.add(torch.is_autocast_enabled("cpu"))


@pytest.mark.parametrize("method", METHODS)
def test_convolutions_run_in_bfloat16_and_fourier_units_in_fp32(tiny_learner, method):
    learn = tiny_learner(*method(), BFloat16(), Types(), control="mask")
    learn.fit(1)
    assert torch.bfloat16 in learn.types.convs and learn.types.fourier == {torch.float32}
    assert learn.types.backward == {False}
    assert {p.dtype for p in learn.model.parameters()} == {torch.float32}
    assert all(v.isfinite().all() for v in learn.model.state_dict().values())


@pytest.mark.parametrize("method", METHODS)
def test_losses_stay_close_to_those_of_fp32(tiny_learner, method):
    def losses(*cbs):
        learn = tiny_learner(*method(), *cbs)
        learn.fit(1)
        return torch.stack(learn.recorder.losses)

    exact, rounded = losses(), losses(BFloat16())
    assert torch.allclose(rounded, exact, rtol=.02) and not torch.equal(rounded, exact)


def test_autocast_ends_with_the_fit_even_an_interrupted_one(tiny_learner, interrupted):
    learn = tiny_learner(BFloat16())
    for stop in True, False:
        interrupted(learn) if stop else learn.fit(1)
        assert not torch.is_autocast_enabled("cpu")
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert learn.get_preds()[0].dtype == torch.float32
