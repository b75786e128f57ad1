import pytest
import torch
from fastai.callback.core import Callback
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastinpaint.train.callback.freeze import FreezeSchedule

FIRST = "encoder.stages.0.conv"


class Watch(Callback):
    "Calls `look(learn)` in every training batch, once its gradients are there"
    order = 20
    def __init__(self, look): self.look = look
    def after_backward(self): self.look(self.learn)


def batchnorms(module): return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def test_frozen_parts_have_no_gradients_and_batchnorm_in_eval_mode(tiny_learner):
    seen = []

    def look(learn):
        for part in learn.model.encoder, learn.model.decoder:
            assert all(p.grad is None and not p.requires_grad for p in part.parameters())
            assert not any(m.training for m in batchnorms(part))
        for part in learn.model.refiner, learn.model.conditioner:
            assert all(p.grad is not None for p in part.parameters())
            assert all(m.training for m in batchnorms(part))
        seen.append(1)

    learn = tiny_learner(FreezeSchedule(), Watch(look), control="mask")
    learn.fit(2)
    assert len(seen) == 6


def test_dropout_of_frozen_parts_is_off(tiny_learner):
    learn, modes = tiny_learner(FreezeSchedule(encoder=None)), []
    learn.model.decoder.stages[0].dropout, learn.model.refiner.dropout = nn.Dropout(), nn.Dropout()
    def keep(*_): modes.append([m.training for m in learn.model.modules() if isinstance(m, nn.Dropout)])
    learn.model.refiner.register_forward_hook(keep)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert [True, False] in modes and [True, True] not in modes


class Peek(Callback):
    "Looks at a fill after every batch, as one writes it, and leaves the whole model in training mode"
    def after_batch(self):
        if self.training:
            self.model.eval()
            self.model.train()


@pytest.mark.parametrize("how", ["schedule", "freeze"])
def test_a_callback_that_looks_at_fills_does_not_thaw_batchnorm(tiny_learner, state_of, same, how):
    learn = tiny_learner(*([FreezeSchedule()] if how == "schedule" else []), Peek(), control="mask")
    if how == "freeze": learn.freeze()  # all but control
    before = state_of(learn.model.decoder)
    learn.fit(2)
    assert same(state_of(learn.model.decoder), before)


def test_frozen_parts_stay_to_the_bit_whatever_is_done_between_fits(tiny_learner, state_of, same):
    learn = tiny_learner(FreezeSchedule(), control="mask", wd=.1)
    model = learn.model
    before = {part: state_of(getattr(model, part)) for part in ("encoder", "decoder", "refiner")}
    learn.fit(1)
    assert all(p.requires_grad for p in model.parameters())  # for whatever comes next
    learn.unfreeze()
    learn.fit_one_cycle(1)
    learn.validate()
    learn.fit(1)
    assert same(state_of(model.encoder), before["encoder"])
    assert same(state_of(model.decoder), before["decoder"])
    assert not same(state_of(model.refiner), before["refiner"])


def test_momentum_does_not_move_what_is_frozen_after_training(tiny_learner, state_of, same):
    seen = []

    def look(learn):
        momenta = [{k: v.clone() for k, v in learn.opt.state[p].items() if torch.is_tensor(v)}
                   for p in learn.model.decoder.parameters()]
        seen.append((state_of(learn.model.decoder), momenta))

    learn = tiny_learner(FreezeSchedule(encoder=None, decoder=(.5, 1)), Watch(look), wd=.1)
    learn.fit(2)
    state, momenta = seen[3]  # the first batch of the second half
    assert all(m["grad_avg"].any() for m in momenta) and not same(state, seen[2][0])
    assert all(same(s, state) and same(m, momenta) for s, m in seen[3:])
    assert same(state_of(learn.model.decoder), state)


def test_a_part_thaws_when_its_time_has_come(tiny_learner, state_of, same):
    seen = []
    watch = Watch(lambda learn: seen.append(state_of(learn.model.decoder)))
    learn = tiny_learner(FreezeSchedule(decoder=(0, .5)), watch)
    before = state_of(learn.model.decoder)
    learn.fit(2)
    assert all(same(s, before) for s in seen[:3])
    heads = [s["head.weight"] for s in [*seen[3:], state_of(learn.model.decoder)]]
    assert len(heads) == 4 and not any(torch.equal(a, b) for a, b in zip(heads, heads[1:], strict=False))


@pytest.mark.parametrize("keep, names", [
    (FIRST, ["0.conv.weight"]), ([FIRST, "encoder.stages.1.conv"], ["0.conv.weight", "1.conv.weight"]),
    ("encoder.stages.?.conv", [f"{i}.conv.weight" for i in range(4)])])
def test_what_is_kept_trains_inside_a_frozen_part(tiny_learner, state_of, keep, names):
    learn = tiny_learner(FreezeSchedule(keep=keep), linear=False)
    before = state_of(learn.model.encoder)
    learn.fit(1)
    changed = {k for k, v in state_of(learn.model.encoder).items() if not torch.equal(v, before[k])}
    assert changed == {f"stages.{name}" for name in names}


def test_any_module_can_be_frozen(tiny_learner, state_of, same):
    learn = tiny_learner(FreezeSchedule(encoder=None, decoder=None, refiner__blocks__0__conv1=(0, 1)))
    before = state_of(learn.model.refiner.blocks[0].conv1)
    learn.fit(1)
    assert same(state_of(learn.model.refiner.blocks[0].conv1), before)


def test_filling_a_photograph_while_training_does_not_thaw_batchnorm(tiny_learner, state_of, same, photos):
    mask = torch.eye(40, 48, dtype=torch.uint8).numpy()
    learn = tiny_learner(FreezeSchedule(), Watch(lambda learn: learn.inpaint(photos/"0.png", mask)))
    before = state_of(learn.model.encoder)
    learn.fit(1)
    assert same(state_of(learn.model.encoder), before)


def test_validation_leaves_gradients_on(tiny_learner):
    learn = tiny_learner(FreezeSchedule())
    learn.validate()
    assert all(p.requires_grad for p in learn.model.parameters())


def test_a_fit_after_an_interrupted_one_freezes_and_releases(tiny_learner, interrupted, state_of, same):
    learn = tiny_learner(FreezeSchedule())
    before = state_of(learn.model.decoder)
    interrupted(learn)
    learn.fit(1)
    assert same(state_of(learn.model.decoder), before)
    assert all(p.requires_grad for p in learn.model.parameters())


@pytest.mark.parametrize("schedule", [FreezeSchedule(critic=(0, 1)), FreezeSchedule(keep="critic"),
                                      FreezeSchedule(keep="critic.*")])
def test_unknown_modules_are_named(tiny_learner, schedule):
    with pytest.raises(ValueError, match=r"no module critic(\.\*)?; its parts are encoder"):
        tiny_learner(schedule).fit(1)


@pytest.mark.parametrize("span", [(-.1, 1), (0, 1.5), (.8, .2)])
def test_impossible_spans_are_refused(span):
    with pytest.raises(ValueError, match=f"decoder.*{span[0]}.*{span[1]}"): FreezeSchedule(decoder=span)
