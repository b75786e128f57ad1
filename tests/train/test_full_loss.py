import pytest
import torch

from fastinpaint.train.full_loss import full_loss
from fastinpaint.train.losses import PixelL1
from fastinpaint.train.step import Step


def test_pixels_count_outside_the_hole_alone_ten_times(half):
    image, mask = half
    loss, chosen = full_loss("none")
    assert chosen == {"perceptual_network": "none"}
    def of(prediction, loss=loss): return loss(Step(image, mask, prediction))
    assert of(image + mask) == 0
    known = of(image + (1 - mask))
    assert known == pytest.approx(10*of(image + 1, PixelL1(missing=0.))) and known > 1


class Features(torch.nn.Module):
    def forward(self, x): return [x, 2*x]


def test_the_perceptual_term_is_there_where_a_network_is_found(monkeypatch):
    monkeypatch.setattr("fastinpaint.train.full_loss.perceptual_network",
                        lambda name: (Features(), f"{name} of a test"))
    loss, chosen = full_loss("vgg")
    image = torch.zeros(1, 3, 8, 8)
    assert chosen == {"perceptual_network": "vgg of a test"}
    step = Step(image, torch.ones(1, 1, 8, 8), prediction=image + 1)
    assert loss(step).item() == pytest.approx(30*(1 + 4))
