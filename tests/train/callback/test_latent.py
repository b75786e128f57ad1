from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback

from fastinpaint.train.callback.checkpoint import Checkpoint
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.latent_distances import DISTANCES
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


# other distances

@pytest.mark.parametrize("distance", DISTANCES)
def test_every_distance_trains_and_is_logged_by_its_name(tiny_learner, distance):
    learn = tiny_learner(FreezeSchedule(), LatentLoss(known=.1, distance=distance), control="mask")
    learn.fit(1)
    assert names(learn)[-2] == f"train_latent_{distance}"
    calls, before = DecoderCalls(learn), learn.recorder.values[-1][0]
    learn.fit(9, 3e-3)
    assert calls.train == 0 and learn.recorder.values[-1][0] < before


def test_the_decoder_is_measured_once_and_nothing_else_changes(tiny_learner):
    "No random number is drawn: a run sees the same batches whatever its distance"
    def batches(**kwargs):
        seen = []
        learn = tiny_learner(FreezeSchedule(), LatentLoss(**kwargs), Watch(lambda o: seen.append(o.xb[0])),
                             augment=True)
        calls = DecoderCalls(learn)
        learn.fit(2)
        return calls.train, seen

    (plain, expected), (measured, found) = batches(), batches(distance="decoder")
    assert (plain, measured) == (0, 1)
    assert len(found) == 6 and all(map(torch.equal, found, expected))


@pytest.mark.parametrize("distance", ["normalised", "decoder"])
def test_a_resumed_run_ends_with_the_bits_of_a_whole_one(tiny_learner, interrupted, tmp_path, state_of, same,
                                                         distance):
    def run(name, resume=False):
        return tiny_learner(FreezeSchedule(), LatentLoss(known=.1, distance=distance),
                            Checkpoint(tmp_path/name, resume), augment=True, control="mask")
    whole = run("whole")
    whole.fit(3)
    broken = run("broken")
    interrupted(broken, 2, 1, lambda: broken.fit(3))
    resumed = run("broken", resume=True)
    calls = DecoderCalls(resumed)
    resumed.fit(3)
    assert calls.train == 0  # the decoder is not measured again
    assert same(state_of(resumed.model), state_of(whole.model))
    assert same(resumed.latent_loss.state_dict(), whole.latent_loss.state_dict())


def test_a_search_for_the_rate_does_not_fix_what_the_decoder_does(tiny_learner):
    learn = tiny_learner(FreezeSchedule(), LatentLoss(distance="decoder"))
    learn.lr_find(num_it=6, show_plot=False)
    assert learn.latent_loss.term.metric is None
    learn.fit(1)
    assert learn.latent_loss.term.metric is not None


# iterates

class Repeated(torch.nn.Module):
    "A refiner that goes through another one three times"
    iterates = None
    def __init__(self, refiner):
        super().__init__()
        self.refiner = refiner

    def forward(self, latent):
        for _ in range(3):
            latent = self.refiner(latent)
            if self.iterates is not None: self.iterates.append(latent)
        return latent


@pytest.fixture
def repeated(tiny_learner):
    "A learner whose refiner has three iterates"
    def make(*cbs):
        learn = tiny_learner(FreezeSchedule(), *cbs, control="mask")
        learn.model.refiner = Repeated(learn.model.refiner)
        return learn
    return make


def test_each_iterate_counts_less_than_the_next(repeated):
    seen = []

    def look(learn):
        step = learn.step
        l1 = [(z - step.target).abs().mean().item() for z in step.iterates]
        assert len(l1) == 3 and step.iterates[-1] is step.latent
        seen.append((learn.loss.item(), .25*l1[0] + .5*l1[1] + l1[2]))

    repeated(LatentLoss(iterates=.5), Watch(look)).fit(2)
    assert len(seen) == 6
    assert all(loss == pytest.approx(expected, rel=1e-4) for loss, expected in seen)


@pytest.mark.parametrize("stop", [False, True])
def test_iterates_are_kept_during_a_fit_alone(repeated, interrupted, stop):
    learn = repeated(LatentLoss(iterates=.8))
    interrupted(learn) if stop else learn.fit(1)
    assert learn.model.refiner.iterates is None
    learn.validate()
    assert learn.model.refiner.iterates is None
    learn = repeated(LatentLoss(), Watch(lambda learn: seen.append(learn.step.iterates)))
    seen = []
    learn.fit(1)
    assert seen == [[]]*3  # nor when only the last is asked for


def test_a_refiner_without_iterates_is_refused(tiny_learner):
    learn = tiny_learner(FreezeSchedule(), LatentLoss(iterates=.8), control="mask")
    learn.model.refiner = torch.nn.Identity()
    with pytest.raises(ValueError, match="iterates=0.8: this model's refiner has no iterates"): learn.fit(1)
    assert learn.model.decode_in_training


def test_an_unknown_distance_is_refused():
    with pytest.raises(ValueError, match="no distance 'l3': expected l1, l2"): LatentLoss(distance="l3")
