"Judge a model, a baseline, or a folder that another system has filled, by one protocol"
from fastinpaint import all as fi
from fastinpaint.core.device import choose_device
from fastinpaint.core.errors import InputError
from fastinpaint.judge.baselines import BASELINES
from fastinpaint.judge.protocol import judged_photos
from fastinpaint.models.load import read_model

from .settings import EvaluateSettings
from .texture import with_texture


def main(settings: EvaluateSettings):
    "Write `card.json` and `card.md` and return the `Card`, or only export photographs and holes"
    s, sets, limit = settings, settings.masks.split(","), settings.limit or None
    measured = dict(frechet=not s.no_frechet, lpips=s.lpips.split(","))
    if s.filled: card = fi.evaluate_files(s.images, s.masks, s.filled, s.invert, **measured)
    else:
        folder = judged_photos(s.data)
        if s.export_masks:
            count = fi.export_photos(folder, s.export_masks, sets, s.size, s.seed, limit)
            return print(f"{count} photographs with holes in {s.export_masks}")
        if not s.model:
            raise InputError(f"--model is a file or one of {', '.join(BASELINES)}; --filled judges a folder")
        device = choose_device(s.device)
        model = textured_model(s.model, device) if s.texture else s.model
        card = fi.evaluate(model, folder, sets, s.size, s.seed, device, limit, **measured)
    for path in card.save(s.out): print(path)
    print("\n" + card.markdown().split("```")[0])
    return card


def textured_model(model, device):
    "`model`, a file or the name of a baseline, followed by texture"
    fill = with_texture(BASELINES[model] if model in BASELINES else read_model(model).to(device).eval())
    fill.__name__ = f"{model} with texture"
    return fill
