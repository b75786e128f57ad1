"What `recipes/compare.py` writes: rows of a ladder side by side, in Markdown and in one HTML file"
import base64
import csv
import html
import io
import statistics
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from fastinpaint.core.files import replacing
from fastinpaint.judge.evaluate import bootstrap
from fastinpaint.judge.protocol import Item
from fastinpaint.judge.show import latent_damage, outlined, show_rows
from fastinpaint.models.net import composite
from fastinpaint.train.callback.step_times import PARTS

METRICS = {"hole_l1": "hole L1", "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
# thesis, Table 5.1: LPIPS, SSIM and hours of each row
THESIS = {"lama_l1": (.155, .865, 6.), "mask_control": (.153, .884, 6.4), "latent": (.163, .878, 4.),
          "latent_control": (.149, .888, 4.3)}
BASE = "lama_l1"


@dataclass
class Row:
    "A method: of each seed the card as a dict, `metrics.csv` and the parts of a step (none for what needs no training)"
    name: str
    cards: list
    histories: list
    parts: list = field(default_factory=list)

    def values(self, metric, group):
        found = [card["metrics"][group][metric]["value"] for card in self.cards]
        return [v for v in found if v is not None]

    def seconds(self): return [sum(epoch_ends(rows)[-1:]) for rows in self.histories]


def read_history(path):
    with Path(path).open() as f: return list(csv.DictReader(f))


def epoch_ends(history):
    "Seconds from the start of training to the end of each epoch"
    return [*accumulate(_seconds(epoch["time"]) for epoch in history)]


def _seconds(clock):
    total = 0
    for part in clock.split(":"): total = 60*total + int(part)
    return total


def group_of(sets): return "all" if len(sets) > 1 else sets[0]


def spread(values):
    "Mean and, of several seeds, ± standard deviation"
    if not values: return "n/a"
    return f"{statistics.mean(values):.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def relative(value, base): return f"{100*(value/base - 1):+.1f} %" if base else "–"


def results_table(rows, group):
    "Header and lines: each row's metrics over seeds, its change from the baseline, and the thesis' own"
    base = next((r for r in rows if r.name == BASE), None)
    changes = [h for what in ("LPIPS", "SSIM", "time") for h in (f"{what} from (1)", f"thesis, {what}")]
    header = ["method", *METRICS.values(), "minutes", *changes]
    lines = []
    for row in rows:
        line = [row.name, *(spread(row.values(m, group)) for m in METRICS)]
        seconds = row.seconds()
        line.append(f"{statistics.mean(seconds)/60:.1f}" if seconds else "–")
        for metric, i in ("lpips", 0), ("ssim", 1), (None, 2):
            ours = base and ((row.values(metric, group), base.values(metric, group)) if metric else (seconds, base.seconds()))
            line.append(relative(*map(statistics.mean, ours)) if ours and all(ours) else "–")
            line.append(relative(THESIS[row.name][i], THESIS[BASE][i]) if row.name in THESIS else "–")
        lines.append(line)
    return header, lines


def sets_table(rows):
    """LPIPS by mask set, mean over seeds, and the difference from the baseline over all sets.

    Its 95 % interval is a bootstrap over photographs, each the mean of its holes and seeds: what other photographs would change,
    where ± over seeds is what another start would.
    """
    sets = [name for name in rows[0].cards[0]["metrics"] if name != "all"]
    base = next((_by_photograph(r) for r in rows if r.name == BASE), {})
    lines = []
    for row in rows:
        line, found = [row.name, *(spread(row.values("lpips", name)) for name in sets)], _by_photograph(row)
        if base and row.name != BASE and found:
            d = bootstrap(np.array([found[name] - base[name] for name in base]), np.ones(len(base)))
            line.append(f"{d['value']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]")
        else: line.append("–")
        lines.append(line)
    return ["method", *sets, "all, from (1)"], lines


def _by_photograph(row):
    "Mean LPIPS of every photograph over mask sets and seeds; none without LPIPS"
    found = {}
    for card in row.cards:
        for image in card["images"]:
            if image["lpips"] is not None: found.setdefault(image["name"], []).append(image["lpips"])
    return {name: statistics.mean(values) for name, values in found.items()}


def equal_time_table(rows):
    "The second reading: validation metrics of the last epoch within the time of the fastest row's seed"
    trained = [r for r in rows if r.histories]
    budget = min(s for r in trained for s in r.seconds())
    names = [m for m in METRICS if m in trained[0].histories[0][0]]
    lines = []
    for row in trained:
        found = {m: [] for m in names}
        for history in row.histories:
            last = None
            for end, epoch in zip(epoch_ends(history), history, strict=True):
                if end <= budget: last = epoch
            for m in names:
                if last is not None and last[m] not in ("n/a", "nan"): found[m].append(float(last[m]))
        lines.append([row.name, *(spread(found[m]) for m in names)])
    return budget, (["method", *(METRICS[m] for m in names)], lines)


def step_table(rows):
    "Milliseconds of a training step by part, mean over seeds of each run's median"
    lines = []
    for row in rows:
        if row.parts:
            found = [1000*statistics.mean(parts[part] for parts in row.parts) for part in PARTS]
            lines.append([row.name, *(f"{ms:.0f}" for ms in found), f"{sum(found):.0f}"])
    return ["method", *PARTS, "step"], lines


def rates_table(tried):
    "Metric of every row at every learning rate, the chosen one marked. `tried`: row → {rate: value}"
    rates = [*next(iter(tried.values()))]
    lines = [[name, *(f"{values[r]:.4f}" + " ✓"*(values[r] == min(values.values())) for r in rates)]
             for name, values in tried.items()]
    return ["method", *(f"{r:g}" for r in rates)], lines


def curves(rows):
    "Validation LPIPS and hole L1 against steps and against minutes, one line a seed; cut at twice the best run's end"
    trained = [r for r in rows if r.histories]
    fig, axes = plt.subplots(2, 2, figsize=(11, 7))
    for colour, row in enumerate(trained):
        for i, history in enumerate(row.histories):
            minutes, epochs = [s/60 for s in epoch_ends(history)], [int(epoch["epoch"]) + 1 for epoch in history]
            for line, metric in enumerate(("lpips", "hole_l1")):
                values = [float("nan") if e[metric] == "n/a" else float(e[metric]) for e in history]
                for x, axis in zip((epochs, minutes), axes[line], strict=True):
                    axis.plot(x, values, color=f"C{colour}", label=row.name if i == 0 else None, lw=1)
                    axis.set_ylabel(METRICS[metric])
    for line, metric in enumerate(("lpips", "hole_l1")):
        ends = [float(h[-1][metric]) for row in trained for h in row.histories if h[-1][metric] != "n/a"]
        for axis in axes[line] if ends else (): axis.set_ylim(.9*min(ends), 2*min(ends))
    axes[1, 0].set_xlabel("epochs of equally many steps")
    axes[1, 1].set_xlabel("minutes of training")
    axes[0, 0].legend(fontsize=8)
    fig.tight_layout()
    return fig


def chosen_images(rows, mask_set):
    "Set and name of the worst, the median and the best image by LPIPS (else hole L1), averaged over trained rows and seeds"
    sums = {}
    for row in rows:
        for card in row.cards if row.histories else []:
            for image in card["images"]:
                if image["set"] == mask_set:
                    value = image["hole_l1"] if image["lpips"] is None else image["lpips"]
                    sums[image["name"]] = sums.get(image["name"], 0) + value
    ranked = sorted(sums, key=lambda name: (-sums[name], name))
    return {"worst": ranked[0], "median": ranked[len(ranked)//2], "best": ranked[-1]}


def grid(items: list[Item], fills):
    "The same holes filled by every row: dict of name → `fill(image, mask)`"
    image, mask = stacked(items)
    columns = {"hole": outlined(image, mask)}
    with torch.no_grad():
        for name, fill in fills.items(): columns[name] = composite(fill(image*(1 - mask), mask), image, mask)
    return show_rows(columns | {"original": image}, max_n=len(items), height=1.6)


def damage_figure(model, items):
    "Eq. 4.1 of the thesis for these photographs, with the plain encoder of `model`"
    image, mask = stacked(items)
    masked = image*(1 - mask)
    with torch.no_grad(): damage = latent_damage(model, image, masked)
    return show_rows({"masked input": masked, "original": image, "decoded difference": damage}, len(items), 1.6)


def stacked(items):
    "Images `[B, 3, H, W]` in [0, 1] and masks `[B, 1, H, W]`"
    images, masks = zip(*(item.tensors() for item in items), strict=True)
    return torch.cat(images), torch.cat(masks)


def write(folder, title, parts):
    """`report.md` with its pictures beside it, and `report.html` that holds them. `parts`: (heading, content) pairs.

    A content is text, a table (header, lines) or a matplotlib figure.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page, site = [f"# {title}", ""], [f"<h1>{html.escape(title)}</h1>"]
    for i, (heading, content) in enumerate(parts):
        if heading:
            page += [f"## {heading}", ""]
            site.append(f"<h2>{html.escape(heading)}</h2>")
        if isinstance(content, str):
            page += [content, ""]
            site.append(f"<p>{html.escape(content)}</p>")
        elif isinstance(content, tuple):
            header, lines = content
            page += [_line(header), "|---"*len(header) + "|", *map(_line, lines), ""]
            cells = [f"<tr>{''.join(f'<{tag}>{html.escape(str(c))}</{tag}>' for c in cells)}</tr>"
                     for tag, cells in (("th", header), *(("td", line) for line in lines))]
            site.append(f"<table>{''.join(cells)}</table>")
        else:
            picture, name = _png(content), f"figure{i}.png"
            with replacing(folder/name) as f: f.write(picture)
            page += [f"![{heading}]({name})", ""]
            data = base64.b64encode(picture).decode()
            site.append(f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{data}">')
    style = ("body{font:15px sans-serif;max-width:1200px;margin:2em auto}"
             "td,th{padding:.2em .7em;text-align:left}img{max-width:100%}")
    with replacing(folder/"report.md") as f: f.write("\n".join(page).encode())
    with replacing(folder/"report.html") as f:
        head = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>"
        f.write((head + "".join(site)).encode())
    return folder/"report.md", folder/"report.html"


def _line(cells): return f"| {' | '.join(map(str, cells))} |"


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()
