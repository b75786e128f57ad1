import numpy as np
from fastai.learner import Learner
from PIL import Image

from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.train.learner import inpaint_learner
from fastinpaint.train.losses import InpaintLoss, PixelMSE


def test_it_fills_what_an_inpainter_fills(tiny_learner, tmp_path):
    learn, rng = tiny_learner(control="mask"), np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8), rng.random((40, 48)) < .2
    pictures = Image.fromarray(image), Image.fromarray(mask)
    for picture, name in zip(pictures, ("photo.png", "mask.png"), strict=True): picture.save(tmp_path/name)
    expected = learn.inpaint(image, mask)
    assert np.array_equal(Inpainter(learn.model)(image, mask), expected)
    for a, b in [(tmp_path/"photo.png", tmp_path/"mask.png"), (str(tmp_path/"photo.png"), mask), pictures]:
        assert np.array_equal(learn.inpaint(a, b), expected)
    assert not np.array_equal(learn.inpaint(image, mask, dilate=2), expected)


def test_it_is_a_plain_learner_that_learns(tiny_learner):
    learn = tiny_learner(control="mask")
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


def test_the_sample_model_fills_better_than_the_mean_colour():
    import fastinpaint
    from fastinpaint.data.photos import named_data
    from fastinpaint.judge.baselines import mean_colour
    from fastinpaint.judge.evaluate import evaluate
    model = fastinpaint.load_model("sample")
    ours, mean = (evaluate(m, named_data("sample")/"valid", "thick", 64, limit=6, frechet=False).metrics["thick"]
                  for m in (model, mean_colour))
    assert ours["hole_l1"]["value"] < .8*mean["hole_l1"]["value"] and ours["ssim"]["value"] > mean["ssim"]["value"]
