"Train the rows of the ladder alike, judge them by one protocol, and report"
import json
import os
from importlib import import_module
from pathlib import Path

from fastinpaint import report
from fastinpaint.all import *
from fastinpaint.baselines import BASELINES
from fastinpaint.callback.tracking import log_table
from fastinpaint.learner import choose_device
from fastinpaint.protocol import holes
from fastinpaint.settings import setting

LADDER = "lama_l1", "mask_control", "latent", "latent_control", "delta", "context_encoder"
FULL = "lama", "latent_control_gan"  # Table 5.2
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


def trained_row(name, runs, flags, about, protocol):
    "Row `name`: a run for each folder of `runs`, the seed its number. What is finished is kept, what was interrupted goes on"
    for seed, run in enumerate(runs):
        if not (run/name/"finished").is_file():
            import_module(f"fastinpaint.recipes.{name}").main(
                out=str(run), seed=seed, resume=(run/name/"checkpoint.pt").is_file(), **flags)
            (run/name/"finished").touch()
    about = about | {"flags": str({k: v for k, v in flags.items() if k not in ("device", "wandb", "project")})}
    cards = [judged(run/name/"model.safetensors", run/name/"card.json", about, **protocol) for run in runs]
    parts = [run/name/"step.json" for run in runs]
    return report.Row(name, cards, [report.read_history(run/name/"metrics.csv") for run in runs],
                      [json.loads(p.read_text()) for p in parts if p.is_file()])


def report_parts(table, fills, photos, sets, flags, limit, environment):
    "Headings and contents of the report"
    group = report.group_of(sets)
    budget, equal = report.equal_time_table(table)
    picks = report.chosen_images(table, sets[-1])
    items = {i.name: i for i in holes(photos, sets[-1], flags["size"], limit=limit or None)}
    shown = {k: v for k, v in fills.items() if k not in ("mean_colour", "navier_stokes")}
    parts = [("Results", "Means over seeds ± standard deviation, over all mask sets; lower hole L1 and LPIPS and higher PSNR "
              "and SSIM are better. Changes are from row (1), lama_l1; beside them the thesis' (Table 5.1: other data)."),
             ("", report.results_table(table, group)),
             ("At equal time", f"Validation metrics of the last epoch within {budget/60:.1f} minutes, the fastest run's time."),
             ("", equal), ("Milliseconds of a training step", report.step_table(table)), ("Training", report.curves(table)),
             ("The same holes", f"From above: the worst, the median and the best photograph of the set {sets[-1]} by mean LPIPS: "
              f"{', '.join(picks.values())}."),
             ("", report.grid([items[n] for n in picks.values()], shown))]
    damage = [n for n in ("latent_control", "mask_control", "lama_l1") if n in fills]
    if damage: parts.append((f"What a hole does to the latent (thesis, Eq. 4.1): the encoder of {damage[0]}",
                             report.damage_figure(fills[damage[0]], [items[n] for n in picks.values()])))
    settings = ["flag", "value"], sorted({**flags, **environment}.items())
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
    prefill: bool = True,        # Give encoders a smooth fill in place of holes, unless --no-prefill (the thesis' black hole)
    lr: float = 0.,              # Highest learning rate; 0: each recipe's own
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
    flags |= {k: v for k, v in dict(steps=steps, lr=lr).items() if v}
    if not prefill: flags["prefill"] = False
    folder, photos = Path(out), named_data(data)
    if (photos/"valid").is_dir(): photos = photos/"valid"
    os.environ.setdefault("WANDB_RUN_GROUP", f"compare-{preset}")
    sets = masks.split(",")
    protocol = dict(photos=photos, masks=sets, size=flags["size"], limit=limit or None, device=choose_device(device))
    about = dict(photos=str(photos), masks=masks, size=flags["size"], limit=limit)

    table, fills = [*untrained_rows(folder, about, protocol)], {}
    for row in table: fills[row.name] = BASELINES[row.name]
    for name in names:
        table.append(trained_row(name, [folder/f"seed{seed}" for seed in range(seeds)], flags, about, protocol))
        fills[name] = load_model(folder/"seed0"/name/"model.safetensors")
    title = f"The ladder, {preset}, {seeds} seed{'s'*(seeds > 1)}"
    paths = report.write(folder, title, report_parts(table, fills, photos, sets, flags, limit, table[-1].cards[0]["environment"]))
    log_table(title, *report.results_table(table, report.group_of(sets)), project, wandb, folder)
    print(*paths, sep="\n")
