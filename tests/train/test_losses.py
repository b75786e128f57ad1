import pytest
import torch

from fastinpaint.train.losses import (
    Adversarial,
    FeatureMatching,
    InpaintLoss,
    MaskedL1,
    Perceptual,
    PixelL1,
    PixelMSE,
)
from fastinpaint.train.step import Step


@pytest.fixture
def batch():
    pred, image, mask = torch.rand(2, 3, 6, 6), torch.rand(2, 3, 6, 6), torch.zeros(2, 1, 6, 6)
    mask[..., :2, :] = 1
    return Step(image, mask, prediction=pred)


def test_pixel_l1_weighs_hole_and_known_pixels(batch):
    error = (batch.prediction - batch.image).abs()
    assert torch.allclose(PixelL1()(batch), error.mean())
    assert torch.allclose(PixelL1(known=10, missing=0)(batch), (10*error*(1 - batch.mask)).mean())


def test_pixel_mse_is_the_mean_squared_error(batch):
    assert torch.allclose(PixelMSE()(batch), (batch.prediction - batch.image).square().mean())


def test_the_loss_is_the_weighted_sum_and_remembers_its_terms(batch):
    loss = InpaintLoss(PixelL1(3.), PixelMSE(.5))
    l1, mse = PixelL1()(batch), PixelMSE()(batch)
    assert torch.allclose(loss(batch), 3*l1 + .5*mse)
    assert torch.equal(loss.values["pixel_l1"], l1) and torch.equal(loss.values["pixel_mse"], mse)


@pytest.mark.parametrize("make", [lambda: PixelMSE(-1), lambda: PixelL1(known=-1), lambda: MaskedL1(missing=-.1),
                                  lambda: Adversarial(-1), lambda: FeatureMatching(-1), lambda: Perceptual(None, -1)])
def test_negative_weights_are_refused(make):
    with pytest.raises(ValueError, match="negative"): make()


def test_the_perceptual_term_sums_over_feature_maps(batch):
    pred, image = batch.prediction.requires_grad_(), batch.image
    network = torch.nn.Module()
    network.forward = lambda x: [x, 2*x[..., ::2, ::2]]
    value = Perceptual(network)(batch)
    error = (pred - image).square()
    assert torch.allclose(value, error.mean() + 4*error[..., ::2, ::2].mean())
    value.backward()
    assert pred.grad.any() and image.grad is None
