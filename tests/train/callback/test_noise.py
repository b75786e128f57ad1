"Noise for a generator's training"
import pytest
import torch
from fastai.callback.core import Callback
from fastai.torch_core import set_seed

from fastinpaint.core.errors import InputError
from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.models.discriminator import PatchGAN
from fastinpaint.models.fcf import fcf
from fastinpaint.train.callback import noise as module
from fastinpaint.train.callback.adversarial import AdversarialTraining
from fastinpaint.train.callback.checkpoint import Checkpoint
from fastinpaint.train.callback.ema import EMA
from fastinpaint.train.callback.noise import StyleNoise
from fastinpaint.train.callback.precision import BFloat16
from fastinpaint.train.learner import inpaint_learner


class Watch(Callback):
    "Keeps what the network is given in every batch, and what it makes of it"
    order = 50
    def __init__(self): self.given, self.preds = [], []
    def after_pred(self):
        if self.training: self.given.append(self.xb[2].clone())
        else: self.preds.append((len(self.xb), self.pred.clone()))


@pytest.fixture
def learner(photos, tmp_path):
    "Makes a learner of a tiny fcf with adversarial training: three batches of two an epoch"
    def make(*cbs, seed=0, noise=None, augment=False):
        set_seed(seed)
        dls = InpaintDataLoaders.from_folder(photos, "center", 32, 2, valid=.25, seed=seed, steps=3,
                                             augment=augment, num_workers=0, device="cpu")
        torch.manual_seed(7)
        gan = AdversarialTraining(PatchGAN(2, 2))
        return inpaint_learner(dls, fcf(2, 3), None, [], [noise or StyleNoise(), gan, *cbs], lr=1e-2,
                               path=tmp_path)
    return make


def test_each_image_of_each_step_has_its_own_and_a_seed_repeats_it(learner):
    def given(seed):
        watch = Watch()
        learner(watch, noise=StyleNoise(seed)).fit(2)
        return torch.cat(watch.given)
    first = given(1)
    assert first.shape == (12, 16) and len(first.unique(dim=0)) == 12
    assert torch.equal(first, given(1)) and not torch.equal(first, given(2))


def test_validation_has_the_noise_of_a_seed(learner):
    learn = learner(watch := Watch())
    learn.fit(2, 0.)
    (n, before), (_, after) = watch.preds
    assert n == 2 and torch.equal(before, after)


@pytest.mark.parametrize("cbs", [[], [BFloat16()]], ids=["float32", "bfloat16"])
def test_it_learns_to_use_it(learner, cbs):
    learn = learner(*cbs)
    masked, mask, *_ = learn.dls.valid.one_batch()
    learn.fit(2)
    with torch.no_grad(): a, b = (learn.model.eval()(masked, mask, seed=seed) for seed in (0, 1))
    assert (a - b).abs().mean() > 1e-5 and learn.recorder.losses[-1].isfinite()


def test_each_process_has_its_rows_of_the_noise_of_all(learner, monkeypatch):
    def drawn(n, rank=0, world=1):
        monkeypatch.setattr(module, "rank", lambda: rank)
        monkeypatch.setattr(module, "world", lambda: world)
        learn.training, learn.train_iter, learn.fit_callbacks = True, 4, [cb]
        learn.xb = torch.zeros(n, 3, 8, 8), torch.zeros(n, 1, 8, 8)
        cb.before_batch()
        return learn.xb[2]
    learn = learner(noise=(cb := StyleNoise()))
    assert torch.equal(drawn(6), torch.cat([drawn(2, rank, 3) for rank in range(3)]))


def test_a_resumed_run_ends_with_the_bits_of_a_whole_one(learner, tmp_path, resumes_to_the_bit):
    def run(name, resume=False): return learner(EMA(.9), Checkpoint(tmp_path/name, resume), augment=True)
    resumes_to_the_bit(run)


def test_another_network_is_refused(tiny_learner):
    with pytest.raises(InputError, match="InpaintNet takes no noise: expected an fcf"):
        tiny_learner(StyleNoise()).fit(1)
