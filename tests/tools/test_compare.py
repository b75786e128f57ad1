import json
import shutil

import pytest

from fastinpaint.core.errors import Diverged, InputError
from fastinpaint.tools import compare
from fastinpaint.tools.settings import CompareSettings


@pytest.fixture
def ladder(photos, tmp_path, monkeypatch):
    "Two small rows of two seeds"
    tiny = dict(size=32, bs=2, steps=2, epochs=1, width=2, blocks=1, workers=0, valid="0.25")
    monkeypatch.setitem(compare.PRESETS, "smoke", tiny)
    monkeypatch.setattr(compare, "UNTRAINED", ("smooth_fill",))

    def run(**kwargs):
        given = dict(preset="smoke", seeds=2, rows="lama_l1,latent_control", data=str(photos),
                     masks="thick", autoencoder="none", out=str(tmp_path/"compare"), device="cpu", limit=3)
        compare.main(CompareSettings(**given | kwargs))
        return tmp_path/"compare"
    return run


def test_the_rows_are_trained_judged_and_reported_once(ladder):
    folder = ladder()
    text = (folder/"report.md").read_text()
    for name in "smooth_fill", "lama_l1", "latent_control": assert f"| {name} |" in text
    assert "±" in text and "Eq. 4.1" in text and (folder/"report.html").is_file()
    models = {f: f.stat().st_mtime_ns for f in folder.rglob("model.safetensors")}
    assert len(models) == 4
    (folder/"seed1/latent_control/finished").unlink()  # as if it had been interrupted after its last epoch
    ladder()
    again = {f: f.stat().st_mtime_ns for f in models}
    assert [f.parent.parts[-2:] for f in models if again[f] != models[f]] == [("seed1", "latent_control")]
    assert (folder/"report.md").read_text() == text


def settings(folder, *names): return [json.loads((folder/name/"settings.json").read_text()) for name in names]


def test_every_row_takes_the_learning_rate_that_was_best_in_a_short_run(ladder, capsys):
    folder = ladder(lr="1e-3,1e30", rows="latent_control", steps=6)
    tried, *runs = settings(folder, *(f"{run}/latent_control" for run in ("tuning/0.001", "seed0", "seed1")))
    assert tried["steps"] == 2 and tried["seed"] not in (0, 1)
    assert [run["lr"] for run in runs] == [.001, .001] and [run["steps"] for run in runs] == [6, 6]
    text = (folder/"report.md").read_text()
    assert "| latent_control | 0." in text and "✓" in text


def test_in_equal_time_a_row_of_slower_steps_takes_fewer(ladder, monkeypatch):
    monkeypatch.setattr(compare, "TIMED_STEPS", 11)
    train = compare.train

    def timed(name, run, **flags):
        train(name, run, **flags)
        step = {"encode": .5, "refine": {"lama_l1": 1., "latent": .5}[name]}
        if run.name == "timing": (run/name/"step.json").write_text(json.dumps(step))
    monkeypatch.setattr(compare, "train", timed)
    folder = ladder(minutes=.1, rows="lama_l1,latent", seeds=1)
    assert [run["steps"] for run in settings(folder, "seed0/lama_l1", "seed0/latent")] == [4, 6]
    assert "| steps | lama_l1 4, latent 6 |" in (folder/"report.md").read_text()


def test_rates_are_never_chosen_by_the_photographs_that_rows_are_judged_on(ladder, photos, tmp_path):
    for part, names in ("train", "01234"), ("valid", "567"):
        (tmp_path/"data"/part).mkdir(parents=True)
        for name in names: shutil.copy(photos/f"{name}.png", tmp_path/"data"/part)
    folder = ladder(lr="1e-3,1e-2", rows="latent_control", seeds=1, data=str(tmp_path/"data"))
    assert settings(folder, "tuning/0.01/latent_control")[0]["data"] == str(tmp_path/"data/train")


def test_a_loss_that_is_no_number_loses(ladder, monkeypatch, capsys):
    train = compare.train

    def diverging(name, run, **flags):
        if flags["lr"] == 10.: raise Diverged("training stopped")
        train(name, run, **flags)
    monkeypatch.setattr(compare, "train", diverging)
    folder = ladder(lr="10,1e-3", rows="latent_control", seeds=1)
    assert settings(folder, "seed0/latent_control")[0]["lr"] == .001
    assert "latent_control at 10: training stopped" in capsys.readouterr().out
    assert "| inf |" in (folder/"report.md").read_text()


def test_interrupted_while_rates_are_tried_it_stops(ladder, monkeypatch):
    def interrupted(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr(compare, "train", interrupted)
    with pytest.raises(KeyboardInterrupt): ladder(lr="1e-3,1e-2")


def test_finished_runs_are_not_passed_off_as_those_of_other_settings(ladder):
    ladder(rows="latent_control")
    message = r"seed0/latent_control was made with other settings: steps=2, now 3.*--out"
    with pytest.raises(ValueError, match=message):
        ladder(rows="latent_control", steps=3)


@pytest.mark.parametrize("wrong, message", [
    (dict(preset="tiny"), "smoke, cpu, gpu"), (dict(rows="lama_l1,mine"), "no rows mine"),
    (dict(steps=3, minutes=1), "--steps or --minutes"),
    (dict(lr="fast"), "--lr is a number or several by comma, not 'fast'")])
def test_what_is_unknown_is_named(ladder, wrong, message):
    with pytest.raises(InputError, match=message): ladder(**wrong)


def test_cards_of_another_protocol_are_not_kept(ladder):
    for limit in 3, 2:
        folder = ladder(rows="latent_control", seeds=1, limit=limit)
        card = json.loads((folder/"baselines/smooth_fill/card.json").read_text())
        assert card["data"]["images"] == len(card["images"]) == limit
