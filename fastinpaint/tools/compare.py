"Train the rows of the ladder alike, judge them by one protocol, and report"
import os
from functools import partial
from pathlib import Path

import pandas as pd

from fastinpaint import all as fi
from fastinpaint.core.errors import InputError
from fastinpaint.judge.baselines import BASELINES
from fastinpaint.judge.protocol import holes, judged_photos
from fastinpaint.train.callback.tracking import log_table

from . import figures, ladder, report, tables
from .engine import mapping
from .ladder import FULL, LADDER, ROWS
from .rows import finished_rows, read_row
from .settings import CompareSettings

PRESETS = {"smoke": dict(size=64, bs=4, steps=6, epochs=2, blocks=1),
           "cpu": dict(size=128, bs=8, steps=3000, epochs=5, blocks=5),
           "gpu": dict(size=256, bs=16, steps=50_000, epochs=100, width=64, bf16=True)}
AUTOENCODER_STEPS = {"smoke": 6, "cpu": 3000, "gpu": 20_000}  # where none that is bundled fits

# texts of the report
SETTING = ", the thesis' setting"
RESULTS = ("Means over seeds ± standard deviation, over all mask sets; lower hole L1 and LPIPS and higher "
           "PSNR and SSIM are better. Changes are from row (1), lama_l1; beside them the thesis' "
           "(Table 5.1: other data).")
BETWEEN_SETS = ("FID by Inception v3 (n/a without its weights); FD and KID, a Fréchet and a kernel distance, "
                "by EfficientNet-Lite0. Lower is better; Fréchet distances depend on the number of fills.")
BY_SET = ("Means over seeds ± standard deviation; last, the difference from row (1) over all sets with its "
          "95 % interval over photographs.")
EQUAL_TIME = ("Validation metrics of the last epoch within {:.1f} minutes, the fastest run's time. "
              "Slower rows are then amid their learning-rate schedule; --minutes trains every row "
              "to the end of its own.")
SAME_HOLES = "From above: the worst, the median and the best photograph of the set {} by mean LPIPS: {}."
DAMAGE = "What a hole does to the latent (thesis, Eq. 4.1): the encoder of "
JOINED = "Each comparison's changes from its own row (1), beside those of the thesis (Table 5.1: other data)."
RATES = "Learning rates: validation LPIPS of a short run"


def learning_rates(text):
    "The numbers in `text`, by comma. Raises InputError for anything else"
    try: return [float(rate) for rate in text.split(",") if rate]
    except ValueError as e: raise InputError(f"--lr is a number or several by comma, not {text!r}") from e


def report_parts(rows, fills, results, between, protocol, flags, tried):
    "Headings and contents of the report"
    (budget, equal), mask_set = tables.equal_time_table(rows), protocol["masks"][-1]
    picks = tables.chosen_images(rows, mask_set)
    items = {i.name: i for i in holes(protocol["photos"], mask_set, flags["size"], limit=protocol["limit"])}
    picked = [items[name] for name in picks.values()]
    shown = {k: v for k, v in fills.items() if k not in ("mean_colour", "navier_stokes")}
    lpips = tables.lpips_of(rows, tables.whole(rows))
    parts = [
        ("Results", RESULTS), ("", results), ("Distances between sets", BETWEEN_SETS), ("", between),
        (f"{tables.METRICS[lpips]} by mask set", BY_SET), ("", tables.sets_table(rows, lpips)),
        ("FD by mask set", tables.groups_table(rows, ["fd_efflite0"])),
        ("By share of hole", tables.groups_table(rows, [lpips, "fd_efflite0"], "by_area")),
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
    if unknown := [n for n in names if n not in ROWS]:
        raise InputError(f"no rows {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if s.steps and s.minutes: raise InputError("--steps or --minutes, not both")
    return names


def recipe_flags(s):
    "Flags of all recipes: what the preset and the user say and no more, since a flag beats --thesis"
    given = {name: getattr(s, name) for name in ("data", "device", "wandb", "project")}
    if s.autoencoder != "sample": given["autoencoder"] = s.autoencoder
    if s.steps: given["steps"] = s.steps
    if not s.prefill: given["prefill"] = False
    if s.thesis: given["thesis"] = True
    return PRESETS[s.preset] | given


def judging(s, size):
    "By what all rows are judged: arguments of `evaluate`, and what a card has to say to be kept"
    photos, lpips = judged_photos(s.data), s.lpips or ("alex,vgg" if s.thesis else "alex")
    protocol = dict(photos=photos, masks=s.masks.split(","), size=size, limit=s.limit or None,
                    device=s.device, lpips=lpips.split(","))
    return protocol, dict(photos=str(photos), masks=s.masks, size=size, limit=s.limit, lpips=lpips)


def settled(s, folder, rates, name, flags):
    "Flags of the runs of row `name`, steps and rate chosen by short runs, and what each rate came to in them"
    tried = {}
    if s.minutes: flags = flags | dict(steps=ladder.steps_in(s.minutes, name, folder, flags))
    if len(rates) > 1: tried = ladder.tried_rates(name, folder, rates, flags)
    if rates: flags = flags | dict(lr=min(tried or rates[:1], key=tried.get))
    return flags, tried


def joined(s):
    "Write the report of the finished comparisons in the folders `s.join`, side by side"
    folder, found = Path(s.out), {Path(o).name: finished_rows(o, ROWS) for o in s.join.split(",")}
    if (folder/"seed0").exists(): raise InputError(f"--out {folder} has a report of its own: choose another")
    parts = [("Changes from row (1)", JOINED), ("", tables.joined_table(found))]
    for name, rows in found.items():
        group = tables.whole(rows)
        parts += [(name, tables.results_table(rows, group)), ("", tables.distances_table(rows, group))]
    print(*report.write(folder, "Ladders side by side", parts), sep="\n")


def main(settings: CompareSettings):
    "Train the rows, judge them and write `report.md` and `report.html` to `settings.out`"
    if settings.join: return joined(settings)
    s, names, rates = settings, rows_asked(settings), learning_rates(settings.lr)
    folder = Path(s.out)
    os.environ.setdefault("WANDB_RUN_GROUP", f"compare-{s.preset}")
    # of the settings that all recipes share, the autoencoder has every one
    more = ladder.own_flags(s.set, [*names, "autoencoder"])
    flags = recipe_flags(s) | more["autoencoder"]
    flags = ladder.with_autoencoder(folder, flags, AUTOENCODER_STEPS[s.preset])
    protocol, about = judging(s, flags["size"])
    rows = [*ladder.untrained_rows(folder/"baselines", about, protocol)]
    fills, spread = {row.name: BASELINES[row.name] for row in rows}, mapping(s)
    own = [ladder.row_flags(name, flags | more[name]) for name in names]
    found = spread(partial(settled, s, folder, rates), names, own)
    owns, tried = ({name: o[i] for name, o in zip(names, found, strict=True)} for i in (0, 1))
    runs = [(name, folder/f"seed{seed}", seed, owns[name]) for name in names for seed in range(s.seeds)]
    spread(partial(ladder.trained_run, about=about, protocol=protocol), *zip(*runs, strict=True))
    for name in names:
        rows.append(read_row(name, [folder/f"seed{seed}"/name for seed in range(s.seeds)]))
        fills[name] = fi.load_model(folder/"seed0"/name/"model.safetensors")
    title = (f"The ladder, {s.preset}{SETTING*s.thesis}, {s.seeds} seed{'s'*(s.seeds > 1)}"
             + f", {s.set}"*bool(s.set))
    if s.minutes:
        flags |= dict(minutes=s.minutes, steps=", ".join(f"{k} {own['steps']}" for k, own in owns.items()))
    if s.set: flags["set"] = s.set
    group = tables.whole(rows)
    results, between = tables.results_table(rows, group), tables.distances_table(rows, group)
    paths = report.write(folder, title, report_parts(rows, fills, results, between, protocol, flags,
                                                     {k: v for k, v in tried.items() if v}))
    table = results.merge(between, on="method")
    log_table(title, [*table.columns], table.to_numpy().tolist(), s.project, s.wandb, folder)
    print(*paths, sep="\n")
