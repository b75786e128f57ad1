import pytest
from fastai.callback.core import Callback

from fastinpaint.train.callback.freeze import FreezeSchedule


def test_groups_go_from_the_encoder_to_control(tiny_learner):
    learn = tiny_learner(control="mask")
    learn.create_opt()
    parts = ["encoder", "decoder", "refiner", "conditioner"]
    assert [{id(p) for p in group} for group in learn.opt.param_lists] == [
        {id(p) for p in getattr(learn.model, part).parameters()} for part in parts]
    learn.fit(1, slice(1e-5, 1e-2))
    assert [h["lr"] for h in learn.opt.hypers] == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])


@pytest.mark.parametrize("n, trained", [(-1, ["conditioner"]), (-2, ["refiner", "conditioner"]),
                                        (1, ["decoder", "refiner", "conditioner"])])
def test_what_is_frozen_stays_to_the_bit(tiny_learner, state_of, same, n, trained):
    learn = tiny_learner(control="mask", wd=.1)
    learn.fit(1)  # leaves momentum
    before = {name: state_of(part) for name, part in learn.model.named_children()}
    learn.freeze_to(n)
    learn.fit(1)
    changed = [k for k, part in learn.model.named_children() if not same(state_of(part), before[k])]
    assert sorted(changed) == sorted(trained)
    learn.unfreeze()
    learn.fit(1)
    assert not any(same(state_of(part), before[k]) for k, part in learn.model.named_children())


def test_without_control_the_refiner_is_the_last_group(tiny_learner):
    learn = tiny_learner(control=None)
    learn.freeze()
    trained = {k.partition(".")[0] for k, p in learn.model.named_parameters() if p.requires_grad}
    assert trained == {"refiner"}


def test_frozen_by_either_is_frozen(tiny_learner, state_of, same):
    "The schedule thaws the decoder half-way, freeze holds it; unfreeze leaves the encoder to the schedule"
    learn = tiny_learner(FreezeSchedule(decoder=(0, .5)), control="mask")
    before = {name: state_of(part) for name, part in learn.model.named_children()}
    def changed(): return {k for k, old in before.items() if not same(state_of(getattr(learn.model, k)), old)}
    learn.freeze()
    learn.fit(2)
    assert changed() == {"conditioner"}
    trained = {k.partition(".")[0] for k, p in learn.model.named_parameters() if p.requires_grad}
    assert trained == {"conditioner"}
    learn.unfreeze()
    learn.fit(2)
    assert changed() == {"conditioner", "refiner", "decoder"}


def test_fine_tune_trains_control_first_and_then_all_by_smaller_rates(tiny_learner, state_of, same):
    seen = []

    class Watch(Callback):
        def after_epoch(self): seen.append(state_of(self.model.encoder))

    learn = tiny_learner(Watch(), control="mask")
    before = state_of(learn.model.encoder)
    learn.fine_tune(1, 1e-2)
    assert same(seen[0], before) and not same(seen[1], before)
