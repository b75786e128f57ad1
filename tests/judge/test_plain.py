import pytest
import torch.nn.functional as F
from fastai.metrics import mae, mse, rmse

from fastinpaint.models.net import composite
from fastinpaint.train.learner import inpaint_learner


@pytest.fixture
def learner(tiny_learner, tiny_lama):
    "Makes a learner of the given arguments"
    def make(**kwargs): return inpaint_learner(tiny_learner().dls, tiny_lama(), **kwargs)
    return make


@pytest.mark.parametrize("metric, of", [
    (mse, lambda a, b: F.mse_loss(a, b)), (lambda pred, targ: (pred - targ).abs().max(), lambda a, b: None),
    (mae, lambda a, b: F.l1_loss(a, b)), (rmse, lambda a, b: F.mse_loss(a, b).sqrt())],
    ids=["mse", "own", "mae", "rmse"])
def test_metrics_of_prediction_and_target_see_the_composite(learner, metric, of):
    learn = learner(metrics=[metric])
    value = learn.validate()[1]
    preds, (images, masks) = learn.get_preds()
    expected = of(composite(preds, images, masks), images)
    if expected is not None: assert value == pytest.approx(expected.item(), rel=1e-5)
    learn.fit(1)


def test_a_metric_that_takes_the_mask_is_given_the_batch(learner):
    def outside(pred, image, mask): return ((pred - image).abs()*(1 - mask)).mean()
    learn = learner(metrics=outside)
    preds, (images, masks) = learn.get_preds()
    assert learn.validate()[1] == pytest.approx(outside(preds, images, masks).item(), rel=1e-5)
    learn.metrics = [mse]  # as in a notebook
    assert len(learn.validate()) == 2
