"Train the rows of the ladder alike, judge them by one protocol, and report"
import json
import os
from importlib import import_module
from pathlib import Path

from fastinpaint.all import *
from fastinpaint.core.device import choose_device
from fastinpaint.core.old_settings import setting
from fastinpaint.judge.baselines import BASELINES
from fastinpaint.judge.protocol import holes
from fastinpaint.tools import report
from fastinpaint.train.callback.tracking import log_table
from fastinpaint.train.run import check_settings

LADDER = "lama_l1", "mask_control", "latent", "latent_control", "delta", "context_encoder"
FULL = "lama", "latent_control_gan"  # Table 5.2
TUNING_SEED = 1000  # of the short runs that choose learning rates and time a step
TIMED_STEPS = 100
UNTRAINED = "mean_colour", "smooth_fill", "telea", "navier_stokes", "patchmatch"
PRESETS = {"smoke": dict(size=64, bs=4, steps=6, epochs=2, blocks=1),
           "cpu": dict(size=128, bs=8, steps=3000, epochs=5, blocks=5),
           "gpu": dict(size=256, bs=16, steps=50_000, epochs=20, width=64, bf16=True)}


def judged(model, path, about, **protocol):
    "The card of `model` as a dict, from `path` if it is there and was made by the same `protocol`"
    if path.is_file() and (card := json.loads(path.read_text()))["model"].get("protocol") == about: return card
    card = evaluate(model, frechet=False, **protocol)
    card.model["protocol"] = about
    return json.loads(card.save(path.parent)[0].read_text())


def untrained_rows(folder, about, protocol):
    for name in UNTRAINED:
        try: yield report.Row(name, [judged(name, folder/"baselines"/name/"card.json", about, **protocol)], [])
        except ImportError as error: print(f"{name}: left out ({error}; pip install fastinpaint[eval])")


def train(name, run, **flags):
    "Recipe `name` in the folder `run`. What is finished is kept, what was interrupted goes on"
    if (run/name/"finished").is_file(): return check_settings(run/name/"settings.json", flags)
    import_module(f"fastinpaint.recipes.{name}").main(out=str(run), resume=(run/name/"checkpoint.pt").is_file(), **flags)
    (run/name/"finished").touch()


def steps_in(minutes, name, folder, flags):
    "Training steps of row `name` that take so many `minutes`, by the median parts of a step in a short run"
    train(name, folder/"timing", **flags | dict(epochs=1, steps=TIMED_STEPS, seed=TUNING_SEED, wandb="disabled"))
    return round(60*minutes/sum(json.loads((folder/"timing"/name/"step.json").read_text()).values()))


def tried_rates(name, folder, rates, flags):
    """Validation LPIPS of row `name` (hole L1 without LPIPS) by learning rate, each after a fifth of the steps.

    With a seed that the ladder does not have, and never on photographs that the ladder is judged on: where there is `train/`,
    on a tenth of it.
    """
    photos, found = named_data(flags["data"]), {}
    if (photos/"train").is_dir(): photos = photos/"train"
    short = flags | dict(data=str(photos), valid=".1", epochs=1, steps=-(-flags["steps"]//5), seed=TUNING_SEED,
                         wandb="disabled")  # the group is for the ladder's runs
    for rate in rates:
        run = folder/"tuning"/f"{rate:g}"
        try: train(name, run, **short | dict(lr=rate))
        except SystemExit as stop:
            if isinstance(stop.code, int): raise  # Ctrl-C; a message says that the loss is no number any more
            print(f"{name} at {rate:g}: {stop.code}")
            found[rate] = float("inf")
            continue
        last = report.read_history(run/name/"metrics.csv")[-1]
        found[rate] = float(last["hole_l1" if last["lpips"] == "n/a" else "lpips"])
    return found


def trained_row(name, runs, flags, about, protocol):
    "Row `name`: a run for each folder of `runs`, the seed its number"
    for seed, run in enumerate(runs): train(name, run, seed=seed, **flags)
    about = about | {"flags": str({k: v for k, v in flags.items() if k not in ("device", "wandb", "project")})}
    cards = [judged(run/name/"model.safetensors", run/name/"card.json", about, **protocol) for run in runs]
    parts = [run/name/"step.json" for run in runs]
    return report.Row(name, cards, [report.read_history(run/name/"metrics.csv") for run in runs],
                      [json.loads(p.read_text()) for p in parts if p.is_file()])


def learning_rates(text):
    try: return [float(rate) for rate in text.split(",") if rate]
    except ValueError: raise SystemExit(f"--lr is a number or several by comma, not {text!r}") from None


def report_parts(table, fills, photos, sets, flags, limit, tried):
    "Headings and contents of the report"
    group = report.group_of(sets)
    budget, equal = report.equal_time_table(table)
    picks = report.chosen_images(table, sets[-1])
    items = {i.name: i for i in holes(photos, sets[-1], flags["size"], limit=limit or None)}
    shown = {k: v for k, v in fills.items() if k not in ("mean_colour", "navier_stokes")}
    parts = [("Results", "Means over seeds ± standard deviation, over all mask sets; lower hole L1 and LPIPS and higher PSNR "
              "and SSIM are better. Changes are from row (1), lama_l1; beside them the thesis' (Table 5.1: other data)."),
             ("", report.results_table(table, group)),
             ("LPIPS by mask set", "Means over seeds ± standard deviation; last, the difference from row (1) over all sets "
              "with its 95 % interval over photographs."), ("", report.sets_table(table)),
             ("At equal time", f"Validation metrics of the last epoch within {budget/60:.1f} minutes, the fastest run's time. "
              "Slower rows are then amid their learning-rate schedule; --minutes trains every row to the end of its own."),
             ("", equal), ("Milliseconds of a training step", report.step_table(table)), ("Training", report.curves(table)),
             ("The same holes", f"From above: the worst, the median and the best photograph of the set {sets[-1]} by mean LPIPS: "
              f"{', '.join(picks.values())}."),
             ("", report.grid([items[n] for n in picks.values()], shown))]
    damage = [n for n in ("latent_control", "mask_control", "lama_l1") if n in fills]
    if damage: parts.append((f"What a hole does to the latent (thesis, Eq. 4.1): the encoder of {damage[0]}",
                             report.damage_figure(fills[damage[0]], [items[n] for n in picks.values()])))
    if tried: parts.append(("Learning rates: validation LPIPS of a short run", report.rates_table(tried)))
    settings = ["flag", "value"], sorted({**flags, **table[-1].cards[0]["environment"]}.items())
    return [*parts, ("Settings", settings)]


@call_parse
def main(
    preset: str = "cpu",         # smoke (minutes), cpu (128 px, width 8; overnight), gpu (256 px, width 64, bf16)
    seeds: int = 3,              # Runs of every row
    full: store_true = False,    # The rows of Table 5.2 as well
    rows: str = "",              # Only these rows, by comma
    data: str = "sample",        # Photographs with train/ and valid/, as for the recipes
    masks: str = "thin,medium,thick",  # Mask sets of the evaluation, by comma
    steps: int = 0,              # Training steps of a row; 0: the preset's
    minutes: float = 0.,         # Give every row equal time in place of equal steps: this many minutes of training steps
    prefill: bool = True,        # Give encoders a smooth fill in place of holes, unless --no-prefill (the thesis' black hole)
    lr: str = "",                # Highest learning rate, by default each recipe's own; of several, by comma, a row's best
    autoencoder: str = "sample", # Where encoders and decoders start from; at width 64 a file of the autoencoder recipe
    limit: int = 0,              # Photographs to judge on, 0 for all
    out: str = "runs/compare",   # Folder of the report and of all runs
    device: str = "auto",        # auto, cpu, cuda …
    wandb: str = "disabled",     # W&B: disabled, offline, online, or auto; one run a row and seed, in one group with a summary
    project: str = setting("project", "fastinpaint"),  # W&B project
):
    "Writes report.md and report.html. Started again, it keeps what is finished."
    if preset not in PRESETS: raise SystemExit(f"--preset is one of {', '.join(PRESETS)}, not {preset!r}")
    names = rows.split(",") if rows else [*LADDER, *(FULL if full else ())]
    if unknown := [n for n in names if n not in (*LADDER, *FULL)]:
        raise SystemExit(f"no rows {', '.join(unknown)}; there are {', '.join((*LADDER, *FULL))}")
    flags = PRESETS[preset] | dict(data=data, device=device, wandb=wandb, project=project, autoencoder=autoencoder)
    if steps and minutes: raise SystemExit("--steps or --minutes, not both")
    if steps: flags["steps"] = steps
    if not prefill: flags["prefill"] = False
    folder, photos = Path(out), named_data(data)
    if (photos/"valid").is_dir(): photos = photos/"valid"
    os.environ.setdefault("WANDB_RUN_GROUP", f"compare-{preset}")
    sets, rates = masks.split(","), learning_rates(lr)
    protocol = dict(photos=photos, masks=sets, size=flags["size"], limit=limit or None, device=choose_device(device))
    about = dict(photos=str(photos), masks=masks, size=flags["size"], limit=limit)

    table, fills, tried, taken = [*untrained_rows(folder, about, protocol)], {}, {}, {}
    for row in table: fills[row.name] = BASELINES[row.name]
    for name in names:
        own = flags | ({"steps": steps_in(minutes, name, folder, flags)} if minutes else {})
        taken[name] = own["steps"]
        if len(rates) > 1: tried[name] = tried_rates(name, folder, rates, own)
        if rates: own["lr"] = min(tried[name], key=tried[name].get) if name in tried else rates[0]
        table.append(trained_row(name, [folder/f"seed{seed}" for seed in range(seeds)], own, about, protocol))
        fills[name] = load_model(folder/"seed0"/name/"model.safetensors")
    title = f"The ladder, {preset}, {seeds} seed{'s'*(seeds > 1)}"
    if minutes: flags |= {"minutes": minutes, "steps": ", ".join(f"{name} {steps}" for name, steps in taken.items())}
    paths = report.write(folder, title, report_parts(table, fills, photos, sets, flags, limit, tried))
    log_table(title, *report.results_table(table, report.group_of(sets)), project, wandb, folder)
    print(*paths, sep="\n")
