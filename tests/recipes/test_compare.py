import pytest

from fastinpaint.recipes import compare


@pytest.fixture
def ladder(photos, tmp_path, monkeypatch):
    "Two small rows of two seeds"
    tiny = dict(size=32, bs=2, steps=2, epochs=1, width=2, blocks=1, workers=0, valid="0.25")
    monkeypatch.setitem(compare.PRESETS, "smoke", tiny)
    monkeypatch.setattr(compare, "UNTRAINED", ("smooth_fill",))

    def run(**kwargs):
        compare.main(**(dict(preset="smoke", seeds=2, rows="lama_l1,latent_control", data=str(photos), masks="thick",
                             autoencoder="none", out=str(tmp_path/"compare"), device="cpu", limit=3) | kwargs))
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


@pytest.mark.parametrize("wrong, message", [(dict(preset="tiny"), "smoke, cpu, gpu"),
                                            (dict(rows="lama_l1,mine"), "no rows mine")])
def test_what_is_unknown_is_named(ladder, wrong, message):
    with pytest.raises(SystemExit, match=message): ladder(**wrong)
