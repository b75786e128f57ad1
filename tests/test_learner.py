import numpy as np
import pytest
import torch
from fastai.learner import Learner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from fastinpaint.learner import fill, inpaint_learner
from fastinpaint.losses import InpaintLoss, PixelMSE
from fastinpaint.models.lama import lama


def photo(h=40, w=48, seed=0): return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def hole(h=40, w=48):
    mask = np.zeros((h, w), bool)
    mask[h//4:h//2 + 1, w//4:w//2 + 1] = True
    return mask


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return lama(2, 1, control=True, autoencoder=None).eval()


def check(result, image, mask):
    result = np.asarray(result)
    assert result.shape == image.shape and result.dtype == np.uint8
    assert (result[~mask] == image[~mask]).all()
    assert (result[mask] != image[mask]).any()


# filling photographs

def test_a_learner_fills_files_pictures_and_arrays_alike(tiny_learner, tmp_path):
    learn, image, mask = tiny_learner(control=True), photo(), hole()
    pictures = Image.fromarray(image), Image.fromarray(mask)
    for picture, name in zip(pictures, ("photo.png", "mask.png"), strict=True): picture.save(tmp_path/name)
    expected = learn.inpaint(image, mask)
    assert isinstance(expected, Image.Image) and expected.mode == "RGB"
    check(expected, image, mask)
    for a, b in [(tmp_path/"photo.png", tmp_path/"mask.png"), (str(tmp_path/"photo.png"), mask), pictures]:
        assert np.array_equal(learn.inpaint(a, b), expected)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50))
def test_photographs_of_any_size(h, w):
    torch.manual_seed(0)
    image, mask = photo(h, w), hole(h, w)
    result = np.asarray(fill(lama(1, 0, control=True, autoencoder=None), image, mask))
    assert result.shape == image.shape and (result[~mask] == image[~mask]).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "CMYK", "I;16"])
def test_any_kind_of_picture(model, mode):
    if mode == "I;16": picture = Image.fromarray(photo()[..., 0].astype(np.uint16)*257)
    else: picture = Image.fromarray(photo()).convert(mode)
    if mode in ("RGBA", "LA"): picture.putalpha(128)
    result = fill(model, picture, hole())
    rgb = np.asarray(fill(model, picture, np.zeros((40, 48), bool)))
    check(result, rgb, hole())


@pytest.mark.parametrize("shape", [(40, 48), (40, 48, 1), (40, 48, 4)])
def test_grey_and_transparent_arrays(model, shape):
    image = photo()[..., 0] if len(shape) == 2 else np.concatenate([photo(), photo()[..., :1]*0 + 255], 2)[..., :shape[2]]
    rgb = np.broadcast_to(image.reshape(40, 48, -1)[..., :3], (40, 48, 3))
    check(fill(model, image, hole()), rgb, hole())


@pytest.mark.parametrize("same_hole", [hole().astype(np.uint8), hole().astype(np.uint8)*255, Image.fromarray(hole()),
                                       Image.fromarray(hole().astype(np.uint8)), Image.fromarray(hole().astype(np.uint8)*255),
                                       Image.fromarray(hole().astype(np.uint8)*255).convert("RGB")], ids=repr)
def test_masks_of_0_and_1_or_0_and_255(model, same_hole):
    assert np.array_equal(fill(model, photo(), same_hole), fill(model, photo(), hole()))


@pytest.mark.parametrize("inverted", [~hole(), (~hole()).astype(np.uint8)*255, Image.fromarray(~hole())], ids=repr)
def test_masks_with_black_holes(model, inverted):
    assert np.array_equal(fill(model, photo(), inverted, invert=True), fill(model, photo(), hole()))


def test_without_a_hole_the_photograph_comes_back(model):
    assert np.array_equal(fill(model, photo(), np.zeros((40, 48), bool)), photo())


def test_filling_repeats_and_leaves_each_part_in_its_mode(model):
    model.train()
    model.encoder.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first, second = (np.asarray(fill(model, photo(), hole())) for _ in range(2))
    assert np.array_equal(first, second)
    assert model.training and model.refiner.training and not any(m.training for m in model.encoder.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert np.array_equal(fill(model.eval(), photo(), hole()), first) and not model.training


@pytest.mark.parametrize("image, mask, message", [
    (photo(), hole(40, 40), "48x40.*40x40"), (photo().astype(np.float32), hole(), "float32"),
    (photo()[..., :2], hole(), "40, 48, 2"), (photo()[None], hole(), "1, 40, 48, 3"),
    (photo(), hole().astype(float), "float64"), (photo(), hole()[..., None], "40, 48, 1")])
def test_wrong_input_is_described(model, image, mask, message):
    with pytest.raises(ValueError, match=message): fill(model, image, mask)


def test_missing_files_are_named(model):
    with pytest.raises(FileNotFoundError, match="nowhere"): fill(model, "nowhere.jpg", hole())
    with pytest.raises(FileNotFoundError, match="nowhere"): fill(model, photo(), "nowhere.png")


# the learner

def test_it_is_a_plain_learner_that_learns(tiny_learner):
    learn = tiny_learner(control=True)
    assert type(learn) is Learner
    before = learn.validate()[0]
    learn.fit(8, 1e-2)
    assert learn.validate()[0] < before


def test_a_term_is_enough_for_a_loss(tiny_learner, tiny_lama):
    dls = tiny_learner().dls
    for loss in PixelMSE(2.), InpaintLoss(PixelMSE(2.)):
        learn = inpaint_learner(dls, tiny_lama(), loss, [])
        assert isinstance(learn.loss_func, InpaintLoss) and learn.validate()[0] > 0


def test_default_metrics_are_those_of_the_papers(tiny_learner, tiny_lama):
    learn = inpaint_learner(tiny_learner().dls, tiny_lama())
    assert [m.name for m in learn.metrics] == ["hole_l1", "psnr", "ssim", "lpips"]


def test_the_optimizer_holds_what_a_schedule_thaws_later(tiny_learner):
    learn = tiny_learner()
    learn.model.decoder.requires_grad_(False)
    learn.create_opt()
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}


def test_known_pixels_of_a_bad_prediction_are_kept():
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(100.))
        def forward(self, masked, mask): return self.scale*torch.randn_like(masked)

    check(fill(Noise(), photo(), hole()), photo(), hole())


# the bundled model

def test_the_sample_model_fills_better_than_the_mean_colour():
    import fastinpaint
    from fastinpaint.baselines import mean_colour
    from fastinpaint.evaluate import evaluate
    from fastinpaint.photos import named_data
    model = fastinpaint.load_model("sample")
    ours, mean = (evaluate(m, named_data("sample")/"valid", "thick", 64, limit=6, frechet=False).metrics["thick"]
                  for m in (model, mean_colour))
    assert ours["hole_l1"]["value"] < .8*mean["hole_l1"]["value"] and ours["ssim"]["value"] > mean["ssim"]["value"]
