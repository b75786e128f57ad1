from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback

from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.losses import PixelL1


class Watch(Callback):
    "Calls `look(learn)` in every training batch, with its loss"
    def __init__(self, look): self.look = look
    def after_loss(self):
        if self.training: self.look(self.learn)


class DecoderCalls:
    "Counts the decoder's runs in training and in validation"
    def __init__(self, learn):
        self.train = self.valid = 0
        learn.model.decoder.register_forward_hook(lambda *_: self.count(learn.model.training))

    def count(self, training):
        if training: self.train += 1
        else: self.valid += 1


@torch.no_grad()
def latents(model, masked, mask, image):
    "The refined latent and the ground truth's, in the mode, and so with the statistics, of this batch"
    return model.refine(model.encode(masked, mask)), model.encode(image)


@pytest.mark.parametrize("size", [32, 36])  # 36 is no multiple of 8
@pytest.mark.parametrize("known, missing", [(1., 1.), (2., .5), (0., 1.)])
def test_the_loss_is_the_weighted_l1_between_latents(tiny_learner, size, known, missing):
    seen = []

    def look(learn):
        (masked, mask), (image, _) = learn.xb, learn.yb
        refined, target = latents(learn.model, masked, mask, image)
        share = F.avg_pool2d(learn.model.pad(mask), 8)  # of hole behind each latent pixel
        weight = missing*share + known*(1 - share)
        seen.append((learn.loss.item(), 3*(weight*(refined - target).abs()).mean().item()))

    cbs = FreezeSchedule(), LatentLoss(3., known, missing), Watch(look)
    learn = tiny_learner(*cbs, control="mask", size=size)
    learn.fit(2)
    assert len(seen) == 6
    assert all(loss == pytest.approx(expected, rel=1e-4) and loss > 0 for loss, expected in seen)


def test_pixel_terms_are_added_where_asked_for(tiny_learner):
    seen = []

    def look(learn):
        values = learn.objective.values
        assert learn.loss.item() == pytest.approx(.1*values["latent_l1"].item() + 2*values["pixel_l1"].item())
        assert torch.allclose(values["pixel_l1"], (learn.pred - learn.yb[0]).abs().mean())
        seen.append(1)

    tiny_learner(FreezeSchedule(), LatentLoss(.1, pixel=True), Watch(look), loss=PixelL1(2.)).fit(1)
    assert len(seen) == 3


@pytest.mark.parametrize("pixel, trained", [(False, 0), (True, 6)])
def test_the_decoder_rests_in_training_unless_pixels_are_judged(tiny_learner, pixel, trained):
    learn = tiny_learner(FreezeSchedule(), LatentLoss(pixel=pixel))
    calls = DecoderCalls(learn)
    learn.fit(2)
    assert (calls.train, calls.valid) == (trained, 2)


def test_after_training_the_model_decodes_and_pixel_losses_are_back(tiny_learner):
    learn = tiny_learner(FreezeSchedule(), LatentLoss())
    learn.fit(1)
    masked, mask, _, _ = (x.as_subclass(torch.Tensor) for x in learn.dls.one_batch())
    assert [t.name for t in learn.loss_func.terms] == ["pixel_l1"]
    assert learn.model.train()(masked, mask).shape == masked.shape


def test_the_target_is_that_of_the_encoder_as_training_began(tiny_learner):
    seen = []
    learn = tiny_learner(FreezeSchedule(keep="encoder.stages.0.conv"), LatentLoss(),
                         Watch(lambda learn: seen.append((learn.yb[0], learn.step.target))), linear=False)
    learn.validate()
    torch.nn.init.uniform_(learn.model.encoder.stages[0].conv.weight)  # weights loaded after a first look
    first = deepcopy(learn.model).eval()
    learn.fit(1)
    learn.fit(1)
    with torch.no_grad():
        image, target = seen[-1]
        assert len(seen) == 6 and torch.allclose(target, first.encode(image), atol=1e-6)
        assert not torch.allclose(target, learn.model.eval().encode(image), atol=1e-4)


def test_a_search_for_the_rate_does_not_fix_the_target(tiny_learner):
    learn = tiny_learner(FreezeSchedule(), LatentLoss())
    learn.lr_find(num_it=6, show_plot=False)
    torch.nn.init.uniform_(learn.model.encoder.stages[0].conv.weight)  # weights loaded after it
    learn.fit(1)
    assert torch.equal(learn.latent_loss.target_encoder.stages[0].conv.weight,
                       learn.model.encoder.stages[0].conv.weight)


def test_the_target_comes_from_the_encoder_as_other_callbacks_prepared_it(tiny_learner):
    learn = tiny_learner(FreezeSchedule(), LatentLoss(), ChannelsLast())
    learn.fit(1)
    weight = learn.latent_loss.target_encoder.stages[1].conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def names(learn): return list(learn.recorder.metric_names)


@pytest.mark.parametrize("stop", [False, True])
def test_everything_works_after_a_fit_even_an_interrupted_one(tiny_learner, interrupted, stop, photos):
    learn = tiny_learner(FreezeSchedule(), LatentLoss(), control="mask")
    interrupted(learn) if stop else learn.fit(1)
    hole = torch.eye(40, 48, dtype=torch.uint8).numpy()
    assert learn.inpaint(photos/"0.png", hole).size == (48, 40)
    assert len(learn.validate()) == 2  # the loss and the one metric
    preds, (images, _) = learn.get_preds()
    assert preds.shape == images.shape == (2, 3, 32, 32)
    calls = DecoderCalls(learn)
    learn.fit(2)
    assert names(learn) == ["epoch", "train_loss", "valid_loss", "hole_l1", "train_latent_l1", "time"]
    assert (calls.train, calls.valid) == (0, 2)
    assert len(learn.model.refiner._forward_hooks) == 0
