import torch

from fastinpaint.train.callback.reconstruct import Reconstruct
from fastinpaint.train.losses import PixelMSE


def test_the_model_sees_whole_photographs_and_is_asked_for_all_of_them(tiny_learner):
    learn = tiny_learner(Reconstruct(), loss=PixelMSE(), control=None, blocks=0)
    preds, (images, masks) = learn.get_preds()
    learn.fit(1)
    assert masks.all()
    loss = learn.recorder.values[0][learn.recorder.metric_names.index("valid_loss") - 1]
    preds, (images, _) = learn.get_preds()
    assert torch.allclose(torch.tensor(loss), (preds - images).square().mean(), rtol=1e-4)


def test_training_starts_at_the_best_linear_code_once(tiny_learner, state_of, same):
    learn = tiny_learner(Reconstruct(), loss=PixelMSE(), control=None, blocks=0, width=8)
    fresh = state_of(learn.model)
    before = learn.validate()[0]
    assert same(state_of(learn.model), fresh)
    learn.fit(1, 0.)  # nothing but the start
    assert learn.validate()[0] < before/10
    learn.fit(1)
    trained = state_of(learn.model)
    learn.validate()
    learn.get_preds()
    assert same(state_of(learn.model), trained)
    linear = learn.model.encoder.stages[1].linear.weight.clone()
    learn.fit(1, 0.)
    assert torch.equal(learn.model.encoder.stages[1].linear.weight, linear)


def test_a_search_for_the_rate_does_not_use_up_the_start(tiny_learner):
    learn = tiny_learner(Reconstruct(), loss=PixelMSE(), control=None, blocks=0, width=8)
    before = learn.validate()[0]
    learn.lr_find(num_it=6, show_plot=False)
    learn.fit(1, 0.)
    assert learn.validate()[0] < before/10
