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
    full_loss,
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


@pytest.mark.parametrize("make", [
    lambda: PixelMSE(-1), lambda: PixelL1(known=-1), lambda: MaskedL1(missing=-.1), lambda: Adversarial(-1),
    lambda: FeatureMatching(-1), lambda: Perceptual(None, -1)])
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


# LaMa's full loss

def test_pixels_count_outside_the_hole_alone_ten_times(half):
    image, mask = half
    loss, chosen = full_loss("none")
    assert chosen == {"perceptual_network": "none"}
    assert loss(Step(image, mask, prediction=image + mask)) == 0
    known = loss(Step(image, mask, prediction=image + (1 - mask))).item()
    assert known == pytest.approx(10*(1 - mask).mean().item()) and known > 1


class Features(torch.nn.Module):
    def forward(self, x): return [x, 2*x]


def test_the_perceptual_term_is_there_where_a_network_is_found(monkeypatch):
    monkeypatch.setattr("fastinpaint.train.losses.perceptual_network",
                        lambda name: (Features(), f"{name} of a test"))
    loss, chosen = full_loss("vgg")
    image = torch.zeros(1, 3, 8, 8)
    assert chosen == {"perceptual_network": "vgg of a test"}
    step = Step(image, torch.ones(1, 1, 8, 8), prediction=image + 1)
    assert loss(step).item() == pytest.approx(30*(1 + 4))
