import pytest
from fastai.callback.core import Callback

from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.losses import InpaintLoss, PixelL1, PixelMSE


class KeepTerms(Callback):
    "Keeps the unweighted terms of every training batch"
    def before_fit(self): self.rows = []
    def after_loss(self):
        if not self.training: return
        self.rows.append((self.epoch, {k: v.item() for k, v in self.objective.values.items()}))


@pytest.mark.parametrize("cbs, terms", [
    ([], ["pixel_l1", "pixel_mse"]), ([FreezeSchedule(), LatentLoss(.5)], ["latent_l1"]),
    ([FreezeSchedule(), LatentLoss(.5, pixel=True)], ["pixel_l1", "pixel_mse", "latent_l1"])])
def test_every_term_is_logged_by_name_as_the_mean_of_its_epoch(tiny_learner, cbs, terms):
    learn = tiny_learner(*cbs, KeepTerms(), loss=InpaintLoss(PixelL1(.1), PixelMSE(10)))
    learn.fit(2)
    columns = list(learn.recorder.metric_names)[1:]
    assert columns == ["train_loss", "valid_loss", "hole_l1", *(f"train_{t}" for t in terms), "time"]
    for epoch, record in enumerate(learn.recorder.values):
        for term in terms:
            batches = [row[term] for e, row in learn.keep_terms.rows if e == epoch]
            assert len(batches) == 3
            assert record[columns.index(f"train_{term}")] == pytest.approx(sum(batches)/3)


def test_the_last_batchs_terms_are_there_for_trackers(tiny_learner):
    learn = tiny_learner(KeepTerms())
    learn.fit(1)
    assert {k: v.item() for k, v in learn.step_log.terms.last.items()} == learn.keep_terms.rows[-1][1]


def test_validation_reports_no_training_terms_and_later_fits_no_column_twice(tiny_learner, interrupted):
    learn = tiny_learner()
    assert len(learn.validate()) == 2
    learn.fit(1)
    interrupted(learn)
    assert len(learn.validate()) == 2
    learn.fit(1)
    assert list(learn.recorder.metric_names).count("train_pixel_l1") == 1
    assert [m.name for m in learn.metrics] == ["hole_l1"]
