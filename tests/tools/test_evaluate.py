"The command that judges one model"
import pytest

from fastinpaint.core.errors import InputError
from fastinpaint.models.load import save_model
from fastinpaint.tools.evaluate import as_folder, main
from fastinpaint.tools.settings import EvaluateSettings


def test_it_writes_a_card_or_exports_holes(photos, tmp_path, capsys):
    def run(**flags):
        return main(EvaluateSettings(data=str(photos), size=32, no_frechet=True, device="cpu", **flags))
    run(export_masks=str(tmp_path/"holes"), masks="thin")
    assert len(list((tmp_path/"holes/thin/masks").iterdir())) == 8
    run(model="smooth_fill", masks="thin,thick", out=str(tmp_path/"card"))
    assert (tmp_path/"card/card.json").is_file() and "| all |" in capsys.readouterr().out
    with pytest.raises(InputError, match="patchmatch.*--filled"): run()
    with pytest.raises(InputError, match="alex.*squeeze"): run(model="smooth_fill", lpips="alex,squeeze")


def test_texture_is_judged_only_when_asked_for(photos, tmp_path):
    flags = dict(model="smooth_fill", masks="medium", data=str(photos), size=32, device="cpu",
                 no_frechet=True)
    cards = [main(EvaluateSettings(texture=texture, out=str(tmp_path/"card"), **flags))
             for texture in (False, True)]
    assert [card.model["name"] for card in cards] == ["smooth_fill", "smooth_fill with texture"]
    plain, textured = (card.metrics["medium"]["hole_l1"]["value"] for card in cards)
    assert plain != textured


def test_several_models_have_cards_of_their_own(photos, tmp_path, tiny_lama):
    model = save_model(tiny_lama(), tmp_path/"runs/tiny/model.safetensors")
    flags = dict(masks="medium", data=str(photos), size=32, device="cpu", no_frechet=True)
    cards = main(EvaluateSettings(model=f"smooth_fill,{model}", out=str(tmp_path/"cards"), **flags))
    assert [card.model["name"] for card in cards] == ["smooth_fill", str(model)]
    alone = main(EvaluateSettings(model="smooth_fill", out=str(tmp_path/"alone"), **flags))
    assert alone.metrics == cards[0].metrics
    folders = sorted(o.parent.name for o in (tmp_path/"cards").rglob("card.json"))
    assert folders == sorted(["smooth_fill", as_folder(str(model))])
    assert as_folder("runs/latent/model.safetensors") == "runs-latent-model"
