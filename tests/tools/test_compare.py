import json
import shutil
from dataclasses import fields

import pytest

from fastinpaint.core.errors import Diverged, InputError
from fastinpaint.models.weights import read_weights
from fastinpaint.tools import compare, ladder
from fastinpaint.tools.settings import CompareSettings
from fastinpaint.train.settings import LatentSettings


@pytest.fixture
def comparison(photos, tmp_path, monkeypatch):
    "Two small rows of two seeds"
    tiny = dict(size=32, bs=2, steps=2, epochs=1, width=2, blocks=1, workers=0, valid="0.25")
    monkeypatch.setitem(compare.PRESETS, "smoke", tiny)
    monkeypatch.setattr(ladder, "UNTRAINED", ("smooth_fill",))

    def run(**kwargs):
        given = dict(preset="smoke", seeds=2, rows="lama_l1,latent_control", data=str(photos),
                     masks="thick", autoencoder="none", out=str(tmp_path/"compare"), device="cpu", limit=3)
        compare.main(CompareSettings(**given | kwargs))
        return tmp_path/"compare"
    return run


def test_the_rows_are_trained_judged_and_reported_once(comparison):
    folder = comparison()
    text = (folder/"report.md").read_text()
    for name in "smooth_fill", "lama_l1", "latent_control": assert f"| {name} |" in text
    assert "±" in text and "Eq. 4.1" in text and (folder/"report.html").is_file()
    models = {f: f.stat().st_mtime_ns for f in folder.rglob("model.safetensors")}
    assert len(models) == 4
    (folder/"seed1/latent_control/finished").unlink()  # as if it had been interrupted after its last epoch
    comparison()
    again = {f: f.stat().st_mtime_ns for f in models}
    assert [f.parent.parts[-2:] for f in models if again[f] != models[f]] == [("seed1", "latent_control")]
    assert (folder/"report.md").read_text() == text


def test_rows_around_another_autoencoder(comparison, tiny_vae, tmp_path):
    tiny_vae("AutoencoderTiny").save_pretrained(tmp_path/"vae")
    rows, given = "latent_control,context_encoder", f"autoencoder={tmp_path/'vae'}"
    folder = comparison(rows=rows, seeds=1, limit=1, set=given, autoencoder="sample")
    assert "| latent_control |" in (folder/"report.md").read_text()
    about, other = settings(folder, "seed0/latent_control", "seed0/context_encoder")
    assert about["autoencoder"] == str(tmp_path/"vae") and other["autoencoder"] == "sample"
    config = read_weights(folder/"seed0/latent_control/model.safetensors")[1]
    assert config["autoencoder"]["kind"] == "AutoencoderTiny"
    comparison(join=str(folder), out=str(tmp_path/"joined"))
    assert (tmp_path/"joined/report.md").is_file()


def settings(folder, *names): return [json.loads((folder/name/"settings.json").read_text()) for name in names]


def test_every_row_takes_the_learning_rate_that_was_best_in_a_short_run(comparison, capsys):
    folder = comparison(lr="1e-3,1e30", rows="latent_control", steps=6)
    tried, *runs = settings(folder, *(f"{run}/latent_control" for run in ("tuning/0.001", "seed0", "seed1")))
    assert tried["steps"] == 2 and tried["seed"] not in (0, 1)
    assert [run["lr"] for run in runs] == [.001, .001] and [run["steps"] for run in runs] == [6, 6]
    text = (folder/"report.md").read_text()
    assert "| latent_control | 0." in text and "✓" in text


def test_in_equal_time_a_row_of_slower_steps_takes_fewer(comparison, monkeypatch):
    monkeypatch.setattr(ladder, "TIMED_STEPS", 11)
    train = ladder.train

    def timed(name, run, **flags):
        train(name, run, **flags)
        step = {"encode": .5, "refine": {"lama_l1": 1., "latent": .5}[name]}
        if run.name == "timing": (run/name/"step.json").write_text(json.dumps(step))
    monkeypatch.setattr(ladder, "train", timed)
    folder = comparison(minutes=.1, rows="lama_l1,latent", seeds=1)
    assert [run["steps"] for run in settings(folder, "seed0/lama_l1", "seed0/latent")] == [4, 6]
    assert "| steps | lama_l1 4, latent 6 |" in (folder/"report.md").read_text()


def test_rates_are_never_chosen_by_the_photographs_that_rows_are_judged_on(comparison, photos, tmp_path):
    for part, names in ("train", "01234"), ("valid", "567"):
        (tmp_path/"data"/part).mkdir(parents=True)
        for name in names: shutil.copy(photos/f"{name}.png", tmp_path/"data"/part)
    folder = comparison(lr="1e-3,1e-2", rows="latent_control", seeds=1, data=str(tmp_path/"data"))
    assert settings(folder, "tuning/0.01/latent_control")[0]["data"] == str(tmp_path/"data/train")


def test_a_loss_that_is_no_number_loses(comparison, monkeypatch, capsys):
    train = ladder.train

    def diverging(name, run, **flags):
        if flags["lr"] == 10.: raise Diverged("training stopped")
        train(name, run, **flags)
    monkeypatch.setattr(ladder, "train", diverging)
    folder = comparison(lr="10,1e-3", rows="latent_control", seeds=1)
    assert settings(folder, "seed0/latent_control")[0]["lr"] == .001
    assert "latent_control at 10: training stopped" in capsys.readouterr().out
    assert "| inf |" in (folder/"report.md").read_text()


def test_interrupted_while_rates_are_tried_it_stops(comparison, monkeypatch):
    def interrupted(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr(ladder, "train", interrupted)
    with pytest.raises(KeyboardInterrupt): comparison(lr="1e-3,1e-2")


def test_finished_runs_are_not_passed_off_as_those_of_other_settings(comparison):
    comparison(rows="latent_control")
    message = r"seed0/latent_control was made with other settings: steps=2, now 3.*--out"
    with pytest.raises(ValueError, match=message):
        comparison(rows="latent_control", steps=3)


@pytest.mark.parametrize("wrong, message", [
    (dict(preset="tiny"), "smoke, cpu, gpu"), (dict(rows="lama_l1,mine"), "no rows mine"),
    (dict(steps=3, minutes=1), "--steps or --minutes"),
    (dict(lr="fast"), "--lr is a number or several by comma, not 'fast'")])
def test_what_is_unknown_is_named(comparison, wrong, message):
    with pytest.raises(InputError, match=message): comparison(**wrong)


def test_cards_of_another_protocol_are_not_kept(comparison):
    for limit in 3, 2:
        folder = comparison(rows="latent_control", seeds=1, limit=limit)
        card = json.loads((folder/"baselines/smooth_fill/card.json").read_text())
        assert card["data"]["images"] == len(card["images"]) == limit


# settings of every row

def given_to(monkeypatch):
    "What each run is given: folder and name → flags"
    train, given = ladder.train, {}

    def noted(name, run, **flags):
        given[f"{run.name}/{name}"] = flags
        train(name, run, **flags)
    monkeypatch.setattr(ladder, "train", noted)
    return given


def test_with_thesis_no_flag_contradicts_the_recipes_own_setting(comparison, monkeypatch):
    given = given_to(monkeypatch)
    folder = comparison(thesis=True, seeds=1, rows="lama_l1,latent", limit=1)
    (field,) = (f for f in fields(LatentSettings) if f.name == "thesis")
    stands_for, flags = field.metadata["group"], given["seed0/latent"]
    assert flags["thesis"] is True and flags.keys().isdisjoint(stands_for)
    made_with, = settings(folder, "seed0/latent")
    assert made_with.items() >= stands_for.items()
    text = (folder/"report.md").read_text()
    assert "# The ladder, smoke, the thesis' setting, 1 seed" in text and "LPIPS-VGG from (1)" in text
    assert "| thesis | True |" in text


def test_only_what_the_user_gives_is_given(comparison, monkeypatch):
    given = given_to(monkeypatch)
    comparison(seeds=1, rows="lama_l1", limit=1, lr="1e-2", prefill=False, lpips="alex")
    assert given["seed0/lama_l1"].items() >= dict(lr=.01, prefill=False, autoencoder="none").items()
    assert "thesis" not in given["seed0/lama_l1"]


def test_settings_of_an_ablation_have_the_settings_types(comparison, monkeypatch):
    given = given_to(monkeypatch)
    folder = comparison(set="plain=true,blocks=2,ema=.5,masks=thin", seeds=1, limit=1,
                        rows="lama_l1,latent_control")
    for name in "lama_l1", "latent_control":
        flags = given[f"seed0/{name}"]
        assert flags["plain"] is True
        assert (flags["blocks"], flags["ema"], flags["masks"]) == (2, .5, "thin")
    text = (folder/"report.md").read_text()
    assert "| set | plain=true," in text


def test_a_row_without_the_setting_goes_without_it():
    assert ladder.own_flags("r1_every=3", ["lama_l1", "lama"]) == dict(lama_l1={}, lama=dict(r1_every=3))


@pytest.mark.parametrize("text, message", [
    ("depht=3", "no setting of a row is called 'depht'; there are .*blocks"),
    ("blocks=many", "'many' is not int"), ("blocks", "'' is not int"),
    ("plain=perhaps", "'perhaps' is not true or false"),
    ("seed=3", "no setting of a row is called 'seed'")])
def test_settings_that_are_none_are_named(text, message):
    with pytest.raises(InputError, match=message): ladder.own_flags(text, ["lama_l1"])


# the autoencoder that all start from

def test_where_no_bundled_autoencoder_fits_one_is_trained_first_and_kept(comparison, monkeypatch):
    monkeypatch.setitem(compare.PRESETS, "gpu", compare.PRESETS["smoke"] | dict(width=4))
    monkeypatch.setitem(compare.AUTOENCODER_STEPS, "gpu", 3)
    given = given_to(monkeypatch)
    def run():
        return comparison(preset="gpu", autoencoder="sample", seeds=1, rows="latent_control", limit=1,
                          set="ema=.5,plain=true")
    file = run()/"autoencoder/model.safetensors"
    assert [*given] == [f"{file.parents[1].name}/autoencoder", "seed0/latent_control"]
    started, trained = given.values()
    assert started["steps"] == 3 and started["width"] == trained["width"] == 4
    # an ablation of the rows leaves it alone where it may
    assert started["plain"] is trained["plain"] is True and "ema" not in started
    assert trained["autoencoder"] == str(file) and "autoencoder" not in started
    (encoder,), (ours,) = ([v for k, v in read_weights(f)[0].items() if k == "encoder.stages.1.conv.weight"]
                           for f in (file, file.parents[1]/"seed0/latent_control/model.safetensors"))
    assert encoder.equal(ours)
    before = file.stat().st_mtime_ns
    run()
    assert file.stat().st_mtime_ns == before


def test_where_the_bundled_autoencoder_fits_none_is_trained(tmp_path):
    for flags in (dict(width=8), dict(width=8, plain=True), dict(width=4, autoencoder="none"),
                  dict(width=4, autoencoder="a.safetensors"), dict(width=4, init="sample")):
        assert ladder.with_autoencoder(tmp_path, flags, 1) == flags


# side by side

def test_finished_comparisons_are_set_side_by_side(comparison, tmp_path):
    first = comparison(seeds=1, limit=2).rename(tmp_path/"first")
    second = shutil.copytree(first, tmp_path/"second")
    compare.main(CompareSettings(join=f"{first},{second}", out=str(tmp_path/"joined")))
    text = (tmp_path/"joined/report.md").read_text()
    assert "| from (1) | method | thesis | first | second |" in text
    assert "| FID | latent_control | -25.3 % | – | – |" in text
    assert "| LPIPS | latent_control | -3.9 % |" in text
    assert "## first\n" in text


def test_only_finished_comparisons_are_joined_and_none_is_overwritten(comparison, tmp_path):
    with pytest.raises(InputError, match=f"no finished comparison in {tmp_path}"):
        compare.main(CompareSettings(join=str(tmp_path), out=str(tmp_path/"joined")))
    ours = comparison(seeds=1, limit=1, rows="lama_l1")
    with pytest.raises(InputError, match="choose another"):
        compare.main(CompareSettings(join=str(ours), out=str(ours)))
