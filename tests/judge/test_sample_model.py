"The bundled model, judged as a user judges it"
import pytest
import torch

from fastinpaint.data.named import named_data
from fastinpaint.judge.evaluate import evaluate
from fastinpaint.judge.protocol import holes
from fastinpaint.kernels.prefill import smooth_fill
from fastinpaint.models.lama import lama
from fastinpaint.models.load import load_model
from fastinpaint.models.refiner import without_detail


def test_the_sample_model_fills_better_than_its_prefill_because_of_its_refiner():
    def judged(model):
        card = evaluate(model, named_data("sample")/"valid", "thick", 128, limit=8, frechet=False)
        return card.metrics["thick"]["hole_l1"]["value"]
    model, silenced = without_detail(load_model("sample")), load_model("sample")
    silenced.refiner = torch.nn.Identity()
    ours, smooth, without = map(judged, (model, smooth_fill, silenced))
    assert ours < .97*smooth < without


def test_its_detail_makes_fills_look_more_like_photographs_for_little_more_error():
    def judged(model):
        card = evaluate(model, named_data("sample")/"valid", "thick", 128, limit=8, frechet=False)
        return [card.metrics["thick"][name]["value"] for name in ("lpips", "hole_l1")]
    model = load_model("sample")
    (lpips, error), (smooth_lpips, smooth_error) = map(judged, (model, without_detail(model)))
    assert lpips < .9*smooth_lpips and error < 1.1*smooth_error


@pytest.mark.parametrize("linear, least", [(True, 38.), (False, 35.)])
def test_each_kind_of_network_has_an_autoencoder_that_keeps_photographs(linear, least):
    net = lama(linear=linear, autoencoder="sample").eval()
    items = holes(named_data("sample")/"valid", "center", 64, limit=12)
    photos = torch.cat([item.tensors()[0] for item in items])
    with torch.no_grad(): found = net.decode(net.encode(photos)).clamp(0, 1)
    assert (-10*(found - photos).square().mean((1, 2, 3)).log10()).mean() > least
