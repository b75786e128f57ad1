"Train the rows of the ladder alike, judge them by one protocol, and report"
import json
import math
import os
from importlib import import_module
from pathlib import Path

import pandas as pd

from fastinpaint import all as fi
from fastinpaint.core.device import choose_device
from fastinpaint.core.errors import Diverged, InputError, MissingPackage
from fastinpaint.judge.baselines import BASELINES
from fastinpaint.judge.protocol import holes
from fastinpaint.train.callback.tracking import log_table
from fastinpaint.train.run import check_settings

from . import figures, report, tables
from .settings import CompareSettings

LADDER = "lama_l1", "mask_control", "latent", "latent_control", "delta", "context_encoder"
FULL = "lama", "latent_control_gan"  # Table 5.2
SHORT = dict(epochs=1, seed=1000, wandb="disabled")  # to choose rates and time steps; no seed of the ladder
TIMED_STEPS = 100
UNTRAINED = "mean_colour", "smooth_fill", "telea", "navier_stokes", "patchmatch"
PRESETS = {"smoke": dict(size=64, bs=4, steps=6, epochs=2, blocks=1),
           "cpu": dict(size=128, bs=8, steps=3000, epochs=5, blocks=5),
           "gpu": dict(size=256, bs=16, steps=50_000, epochs=20, width=64, bf16=True)}

# texts of the report
RESULTS = ("Means over seeds ± standard deviation, over all mask sets; lower hole L1 and LPIPS and higher "
           "PSNR and SSIM are better. Changes are from row (1), lama_l1; beside them the thesis' "
           "(Table 5.1: other data).")
BY_SET = ("Means over seeds ± standard deviation; last, the difference from row (1) over all sets with its "
          "95 % interval over photographs.")
EQUAL_TIME = ("Validation metrics of the last epoch within {:.1f} minutes, the fastest run's time. "
              "Slower rows are then amid their learning-rate schedule; --minutes trains every row "
              "to the end of its own.")
SAME_HOLES = "From above: the worst, the median and the best photograph of the set {} by mean LPIPS: {}."
DAMAGE = "What a hole does to the latent (thesis, Eq. 4.1): the encoder of "
RATES = "Learning rates: validation LPIPS of a short run"


def judged(model, path, about, **protocol):
    "The card of `model` as a dict, from `path` if it was made by the same `protocol`"
    if path.is_file():
        card = json.loads(path.read_text())
        if card["model"].get("protocol") == about: return card
    card = fi.evaluate(model, frechet=False, **protocol)
    card.model["protocol"] = about
    return json.loads(card.save(path.parent)[0].read_text())


def untrained_rows(folder, about, protocol):
    "A row for each fill that needs no training and whose package is installed"
    for name in UNTRAINED:
        try: yield tables.Row(name, [judged(name, folder/name/"card.json", about, **protocol)], [])
        except MissingPackage as error: print(f"{name}: left out ({error})")


def train(name, run, **flags):
    "Recipe `name` in the folder `run`. What is finished is kept, what was interrupted goes on"
    folder = run/name
    if (folder/"finished").is_file(): return check_settings(folder/"settings.json", flags)
    recipe = import_module(f"fastinpaint.recipes.{name}")
    recipe.main(out=str(run), resume=(folder/"checkpoint.pt").is_file(), **flags)
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
            last = tables.read_history(run/name/"metrics.csv").iloc[-1]
            found[rate] = float(last["hole_l1"] if math.isnan(last["lpips"]) else last["lpips"])
    return found


def trained_row(name, runs, flags, about, protocol):
    "Row `name`: a run for each folder of `runs`, the seed its number"
    for seed, run in enumerate(runs): train(name, run, seed=seed, **flags)
    kept = {k: v for k, v in flags.items() if k not in ("device", "wandb", "project")}
    about, folders = about | {"flags": str(kept)}, [run/name for run in runs]
    cards = [judged(f/"model.safetensors", f/"card.json", about, **protocol) for f in folders]
    parts = [json.loads(p.read_text()) for f in folders if (p := f/"step.json").is_file()]
    return tables.Row(name, cards, [tables.read_history(f/"metrics.csv") for f in folders], parts)


def learning_rates(text):
    "The numbers in `text`, by comma. Raises InputError for anything else"
    try: return [float(rate) for rate in text.split(",") if rate]
    except ValueError as e: raise InputError(f"--lr is a number or several by comma, not {text!r}") from e


def report_parts(rows, fills, results, protocol, flags, tried):
    "Headings and contents of the report"
    (budget, equal), mask_set = tables.equal_time_table(rows), protocol["masks"][-1]
    picks = tables.chosen_images(rows, mask_set)
    items = {i.name: i for i in holes(protocol["photos"], mask_set, flags["size"], limit=protocol["limit"])}
    picked = [items[name] for name in picks.values()]
    shown = {k: v for k, v in fills.items() if k not in ("mean_colour", "navier_stokes")}
    parts = [
        ("Results", RESULTS), ("", results), ("LPIPS by mask set", BY_SET), ("", tables.sets_table(rows)),
        ("At equal time", EQUAL_TIME.format(budget/60)), ("", equal),
        ("Milliseconds of a training step", tables.step_table(rows)), ("Training", figures.curves(rows)),
        ("The same holes", SAME_HOLES.format(mask_set, ", ".join(picks.values()))),
        ("", figures.grid(picked, shown))]
    if name := next((n for n in ("latent_control", "mask_control", "lama_l1") if n in fills), None):
        parts.append((DAMAGE + name, figures.latent_damage(fills[name], picked)))
    if tried: parts.append((RATES, tables.rates_table(tried)))
    settings = sorted({**flags, **rows[-1].cards[0]["environment"]}.items())
    return [*parts, ("Settings", pd.DataFrame(settings, columns=["flag", "value"], dtype=object))]


def rows_asked(s):
    "Names of the rows to train by the settings `s`. Raises InputError where these do not fit together"
    if s.preset not in PRESETS: raise InputError(f"--preset is one of {', '.join(PRESETS)}, not {s.preset!r}")
    names = s.rows.split(",") if s.rows else [*LADDER, *(FULL if s.full else ())]
    if unknown := [n for n in names if n not in LADDER + FULL]:
        raise InputError(f"no rows {', '.join(unknown)}; there are {', '.join(LADDER + FULL)}")
    if s.steps and s.minutes: raise InputError("--steps or --minutes, not both")
    return names


def recipe_flags(s):
    "Flags of the recipes of all rows by the settings `s`"
    given = {name: getattr(s, name) for name in ("data", "device", "wandb", "project", "autoencoder")}
    if s.steps: given["steps"] = s.steps
    if not s.prefill: given["prefill"] = False
    return PRESETS[s.preset] | given


def main(settings: CompareSettings):
    "Train the rows, judge them and write `report.md` and `report.html` to `settings.out`"
    s, names, rates = settings, rows_asked(settings), learning_rates(settings.lr)
    flags = recipe_flags(s)
    folder, photos, sets = Path(s.out), fi.named_data(s.data), s.masks.split(",")
    if (photos/"valid").is_dir(): photos = photos/"valid"
    os.environ.setdefault("WANDB_RUN_GROUP", f"compare-{s.preset}")
    protocol = dict(photos=photos, masks=sets, size=flags["size"], limit=s.limit or None,
                    device=choose_device(s.device))
    about = dict(photos=str(photos), masks=s.masks, size=flags["size"], limit=s.limit)
    rows, tried, taken = [*untrained_rows(folder/"baselines", about, protocol)], {}, {}
    fills = {row.name: BASELINES[row.name] for row in rows}
    for name in names:
        own = flags | ({"steps": steps_in(s.minutes, name, folder, flags)} if s.minutes else {})
        taken[name] = own["steps"]
        if len(rates) > 1: tried[name] = tried_rates(name, folder, rates, own)
        if name in tried: own["lr"] = min(tried[name], key=tried[name].get)
        elif rates: own["lr"] = rates[0]
        runs = [folder/f"seed{seed}" for seed in range(s.seeds)]
        rows.append(trained_row(name, runs, own, about, protocol))
        fills[name] = fi.load_model(folder/"seed0"/name/"model.safetensors")
    title = f"The ladder, {s.preset}, {s.seeds} seed{'s'*(s.seeds > 1)}"
    if s.minutes: flags |= dict(minutes=s.minutes, steps=", ".join(f"{k} {n}" for k, n in taken.items()))
    results = tables.results_table(rows, "all" if len(sets) > 1 else sets[0])
    paths = report.write(folder, title, report_parts(rows, fills, results, protocol, flags, tried))
    log_table(title, [*results.columns], results.to_numpy().tolist(), s.project, s.wandb, folder)
    print(*paths, sep="\n")
