"Rows of the ladder: trained alike, kept where they are finished, and judged by one protocol"
import json
import math
from dataclasses import fields
from importlib import import_module

from fastinpaint import all as fi
from fastinpaint.core.device import choose_device
from fastinpaint.core.errors import Diverged, InputError, MissingPackage
from fastinpaint.core.settings import read
from fastinpaint.train.run import check_settings

from .rows import Row, lpips_in, read_history

LADDER = "lama_l1", "mask_control", "latent", "latent_control", "delta", "context_encoder"
FULL = "lama", "latent_control_gan"  # Table 5.2
ROWS = (*LADDER, *FULL, "iterate", "latent_gan", "latent_diffusion", "pixel_diffusion", "fcf")
SHORT = dict(epochs=1, seed=1000, wandb="disabled")  # to choose rates and time steps; no seed of the ladder
TIMED_STEPS = 100
UNTRAINED = "mean_colour", "smooth_fill", "telea", "navier_stokes", "patchmatch"
# settings of recipes that a comparison itself decides
DECIDED = "out", "seed", "resume", "overwrite", "thesis", "data", "device", "wandb", "project"
# what an autoencoder has to share with the rows, or may
SHARED = "thesis", "data", "size", "bs", "epochs", "width", "plain", "bf16", "device", "wandb", "project"
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def recipe(name): return import_module(f"fastinpaint.recipes.{name}").main


def own_flags(text, names):
    """Recipe → flags by NAME=VALUE pairs in `text`, of its settings' types; one without a name goes without.

    Raises InputError for a name that none of the recipes `names` has, and for a value of another type."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    kinds = {name: {f.name: type(f.default) for f in fields(recipe(name).settings) if f.name not in DECIDED}
             for name in names}
    for key, *_ in pairs:
        if not any(key in of for of in kinds.values()):
            known = ", ".join(sorted(set().union(*kinds.values())))
            raise InputError(f"--set {text}: no setting of a row is called {key!r}; there are {known}")
    return {name: {key: _value(key, value, of[key]) for key, _, value in pairs if key in of}
            for name, of in kinds.items()}


def row_flags(name, flags):
    "`flags` as row `name` takes them: some have no other encoder than their own"
    other = name in ("context_encoder", "fcf") and fi.is_foreign(flags.get("autoencoder"))
    return {k: v for k, v in flags.items() if not (other and k == "autoencoder")}


def _value(key, text, kind):
    try: return WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as e:
        expected = "true or false" if kind is bool else kind.__name__
        raise InputError(f"--set {key}={text}: {text!r} is not {expected}") from e


def with_autoencoder(folder, flags, steps):
    "`flags`; where the bundled autoencoder does not fit them, with one trained for `steps` in `folder`"
    s = read(recipe("lama_l1").settings, **flags)
    if s.init or s.autoencoder != "sample": return flags
    try: fi.lama(s.width, blocks=0, control=None, linear=not s.plain)
    except InputError:
        shared = {k: v for k, v in flags.items() if k in SHARED}
        train("autoencoder", folder, steps=steps, **shared)
        return flags | dict(autoencoder=str(folder/"autoencoder/model.safetensors"))
    return flags


def train(name, run, **flags):
    "Recipe `name` in the folder `run`. What is finished is kept, what was interrupted goes on"
    folder = run/name
    if (folder/"finished").is_file(): return check_settings(folder/"settings.json", flags)
    resume = (folder/"checkpoint.pt").is_file()
    # what Ctrl-C saves in the first epoch is no result
    recipe(name)(out=str(run), resume=resume, overwrite=not resume, **flags)
    (folder/"finished").touch()


def steps_in(minutes, name, folder, flags):
    "Training steps of row `name` in `minutes`, by the median parts of a step in a short run"
    train(name, folder/"timing", **flags | SHORT | dict(steps=TIMED_STEPS))
    parts = json.loads((folder/"timing"/name/"step.json").read_text())
    return round(60*minutes/sum(parts.values()))


def tried_rates(name, folder, rates, flags):
    """Validation LPIPS (else hole L1) of row `name` by learning rate, after a fifth of the steps.

    The runs never see photographs that the ladder is judged on: `train/` is validated on a tenth of it."""
    photos, found = fi.named_data(flags["data"]), {}
    if (photos/"train").is_dir(): photos = photos/"train"
    short = SHORT | dict(data=str(photos), valid=".1", steps=-(-flags["steps"]//5))
    for rate in rates:
        run = folder/"tuning"/f"{rate:g}"
        try: train(name, run, **flags | short | dict(lr=rate))
        except Diverged as error:
            print(f"{name} at {rate:g}: {error}")
            found[rate] = math.inf
        else:
            history = read_history(run/name/"metrics.csv")
            last, lpips = history.iloc[-1], lpips_in(history)
            found[rate] = float(last["hole_l1"] if math.isnan(last[lpips]) else last[lpips])
    return found


def trained_run(name, run, seed, flags, about, protocol):
    "Row `name` trained in the folder `run` and judged, where it has not been"
    train(name, run, seed=seed, **flags)
    kept = {k: v for k, v in flags.items() if k not in ("device", "wandb", "project")}
    judged(run/name/"model.safetensors", run/name/"card.json", about | {"flags": str(kept)}, **protocol)


def untrained_rows(folder, about, protocol):
    "A row for each fill that needs no training and whose package is installed"
    for name in UNTRAINED:
        try: yield Row(name, [judged(name, folder/name/"card.json", about, **protocol)], [])
        except MissingPackage as error: print(f"{name}: left out ({error})")


def judged(model, path, about, **protocol):
    "The card of `model` as a dict, from `path` if it was made by the same `protocol`"
    if path.is_file():
        card = json.loads(path.read_text())
        if card["model"].get("protocol") == about: return card
    card = fi.evaluate(model, **protocol | dict(device=choose_device(protocol["device"])))
    card.model["protocol"] = about
    return json.loads(card.save(path.parent)[0].read_text())
