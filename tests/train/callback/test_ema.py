import pytest
import torch
from fastai.callback.core import Callback

from fastinpaint.train.callback.ema import EMA


class Weights(Callback):
    "Keeps the model's weights after each step, and those that validation saw"
    order = 75
    def __init__(self): self.trained, self.validated = [], []
    def after_step(self): self.trained.append(weights(self.learn))

    def after_batch(self):
        if not self.training: self.validated.append(weights(self.learn))


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def test_validation_sees_the_average_and_training_does_not(tiny_learner):
    watch = Weights()
    learn = tiny_learner(EMA(.5), watch)
    average = weights(learn)
    learn.fit(2)
    for i, w in enumerate(watch.trained):
        decay = min(.5, (2 + i)/(11 + i))
        average = average + (1 - decay)*(w - average)
        if i in (2, 5): torch.testing.assert_close(watch.validated.pop(0), average)
    torch.testing.assert_close(weights(learn), average)  # and it is what remains


def test_without_decay_the_average_is_the_weights(tiny_learner, state_of, same):
    def trained(*cbs):
        learn = tiny_learner(*cbs)
        learn.fit(1)
        return state_of(learn.model)
    assert same(trained(), trained(EMA(0.)))


def test_validating_outside_of_training_changes_nothing(tiny_learner):
    learn = tiny_learner(EMA(.9))
    before = weights(learn)
    learn.validate()
    assert torch.equal(weights(learn), before)


def test_an_interrupted_fit_ends_with_the_average_too(tiny_learner, interrupted):
    learn = tiny_learner(EMA(.99), Weights())
    interrupted(learn, 1, 1)
    trained, average = learn.weights.trained[-1], learn.weights.validated[-1]
    assert not torch.equal(weights(learn), trained) and not torch.equal(weights(learn), average)
    start = weights(learn)
    learn.fit(1, 0.)  # the next fit begins with a new average
    torch.testing.assert_close(weights(learn), start)


def test_it_can_be_given_to_one_fit(tiny_learner, state_of, same):
    always = tiny_learner(EMA(.9))
    always.fit(1)
    once = tiny_learner()
    once.fit(1, cbs=EMA(.9))
    assert same(state_of(once.model), state_of(always.model))


@pytest.mark.parametrize("decay", [-.1, 1.])
def test_impossible_decays_are_refused(decay):
    with pytest.raises(ValueError, match=str(decay)): EMA(decay)
