"Judge a model, a baseline, or a folder that another system has filled, by one protocol"
from functools import partial
from pathlib import Path

from fastinpaint import all as fi
from fastinpaint.core.device import choose_device
from fastinpaint.core.errors import InputError
from fastinpaint.judge.baselines import BASELINES
from fastinpaint.judge.protocol import judged_photos
from fastinpaint.models.load import read_model

from .engine import mapping
from .settings import EvaluateSettings
from .texture import with_texture


def main(settings: EvaluateSettings):
    """Write `card.json` and `card.md` and return the `Card`, or only export photographs and holes.

    Of several models each is judged by itself, and a list of cards returned."""
    s = settings
    if s.export_masks:
        sets, limit = s.masks.split(","), s.limit or None
        count = fi.export_photos(judged_photos(s.data), s.export_masks, sets, s.size, s.seed, limit)
        return print(f"{count} photographs with holes in {s.export_masks}")
    if s.filled: cards, folders = [judged_files(s)], [Path(s.out)]
    else:
        if not s.model:
            raise InputError(f"--model is a file or one of {', '.join(BASELINES)}; --filled judges a folder")
        models = s.model.split(",")
        cards = mapping(s)(partial(judged, s), models)
        folders = [Path(s.out, *[as_folder(name)]*(len(models) > 1)) for name in models]
    for card, folder in zip(cards, folders, strict=True):
        for path in card.save(folder): print(path)
        print("\n" + card.markdown().split("```")[0])
    return cards if len(cards) > 1 else cards[0]


def judged(s, name):
    "The `Card` of the model or baseline `name`"
    device = choose_device(s.device)
    model = textured_model(name, device) if s.texture else name
    photos, sets, limit = judged_photos(s.data), s.masks.split(","), s.limit or None
    return fi.evaluate(model, photos, sets, s.size, s.seed, device, limit,
                       fills=s.fills, **measured(s))


def judged_files(s):
    "The `Card` of what another system has filled"
    return fi.evaluate_files(s.images, s.masks, s.filled, s.invert, **measured(s))


def measured(s): return dict(frechet=not s.no_frechet, lpips=s.lpips.split(","))


def as_folder(model):
    "A name for the folder of the card of `model`: runs-latent-model of runs/latent/model.safetensors"
    return "-".join(Path(model).with_suffix("").parts).strip("/-.")


def textured_model(model, device):
    "`model`, a file or the name of a baseline, followed by texture"
    fill = with_texture(BASELINES[model] if model in BASELINES else read_model(model).to(device).eval())
    fill.__name__ = f"{model} with texture"
    return fill
