"The command that judges one model"
import pytest

from fastinpaint.core.errors import InputError
from fastinpaint.tools.evaluate import main
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
