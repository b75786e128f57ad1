"Tables of a comparison: the rows of the ladder side by side"
import statistics
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fastinpaint.judge.bootstrap import bootstrap
from fastinpaint.train.callback.step_times import PARTS

METRICS = {"hole_l1": "hole L1", "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
# thesis, Table 5.1: LPIPS, SSIM and hours of each row
THESIS = {"lama_l1": (.155, .865, 6.), "mask_control": (.153, .884, 6.4),
          "latent": (.163, .878, 4.), "latent_control": (.149, .888, 4.3)}
BASE = "lama_l1"


@dataclass
class Row:
    "A method: a card as a dict for each seed, histories and parts of a step of its runs"
    name: str
    cards: list
    histories: list  # of `read_history`; none for a method that needs no training
    parts: list = field(default_factory=list)  # dicts of the `PARTS` of a step, in seconds

    def values(self, metric, group):
        found = [card["metrics"][group][metric]["value"] for card in self.cards]
        return [v for v in found if v is not None]

    def seconds(self): return [int(history["seconds"].iat[-1]) for history in self.histories]


def read_history(path):
    "The DataFrame of a `metrics.csv`, with `seconds` from the start to the end of each epoch"
    history = pd.read_csv(path)  # reads n/a as NaN
    return history.assign(seconds=history["time"].map(_seconds).cumsum())


def _seconds(clock):
    "Of minutes:seconds or hours:minutes:seconds"
    return sum(int(part)*60**i for i, part in enumerate(reversed(clock.split(":"))))


def spread(values):
    "Mean and, of several seeds, ± standard deviation"
    if not values: return "n/a"
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"


def relative(value, base): return f"{100*(value/base - 1):+.1f} %" if base else "–"


def results_table(rows, group):
    "Metrics over seeds, minutes, and changes from the baseline beside those of the thesis"
    base = next((r for r in rows if r.name == BASE), Row(BASE, [], []))
    def line_of(row):
        seconds, thesis = row.seconds(), THESIS.get(row.name)
        line = {"method": row.name} | {title: spread(row.values(m, group)) for m, title in METRICS.items()}
        line["minutes"] = f"{statistics.mean(seconds)/60:.1f}" if seconds else "–"
        changes = [(METRICS[m], row.values(m, group), base.values(m, group)) for m in ("lpips", "ssim")]
        for i, (what, *ours) in enumerate([*changes, ("time", seconds, base.seconds())]):
            line[f"{what} from (1)"] = relative(*map(statistics.mean, ours)) if all(ours) else "–"
            line[f"thesis, {what}"] = relative(thesis[i], THESIS[BASE][i]) if thesis else "–"
        return line
    return pd.DataFrame(map(line_of, rows))


def sets_table(rows):
    "LPIPS by mask set over seeds, and the difference from the baseline, its interval over photographs"
    sets = [name for name in rows[0].cards[0]["metrics"] if name != "all"]
    base = next((_by_photograph(r) for r in rows if r.name == BASE), pd.Series(dtype=float))
    def from_base(row):
        found = _by_photograph(row)
        if base.empty or found.empty or row.name == BASE: return "–"
        d = bootstrap((found[base.index] - base).to_numpy(), np.ones(len(base)))
        return f"{d['value']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]"
    return pd.DataFrame([{"method": row.name} | {name: spread(row.values("lpips", name)) for name in sets}
                         | {"all, from (1)": from_base(row)} for row in rows])


def _by_photograph(row):
    "Mean LPIPS of every photograph over mask sets and seeds; empty without LPIPS"
    images = pd.DataFrame([i for card in row.cards for i in card["images"]], columns=["name", "lpips"])
    return images.dropna().astype({"lpips": float}).groupby("name", sort=False)["lpips"].mean()


def equal_time_table(rows):
    "Seconds of the fastest run, and validation metrics of every row's last epoch within them"
    trained = [r for r in rows if r.histories]
    budget = min(s for r in trained for s in r.seconds())
    names = [m for m in METRICS if m in trained[0].histories[0]]
    def line_of(row):
        last = pd.concat([h[h["seconds"] <= budget].tail(1) for h in row.histories])
        return {"method": row.name} | {METRICS[m]: spread([*last[m].dropna()]) for m in names}
    return budget, pd.DataFrame(map(line_of, trained))


def step_table(rows):
    "Milliseconds of a training step by part, mean over seeds of each run's median"
    means = {r.name: 1000*pd.DataFrame(r.parts, columns=PARTS).mean() for r in rows if r.parts}
    lines = [[name, *(f"{ms:.0f}" for ms in (*mean, mean.sum()))] for name, mean in means.items()]
    return pd.DataFrame(lines, columns=["method", *PARTS, "step"])


def rates_table(tried):
    "Metric of every row at every learning rate, the best marked. `tried`: row → {rate: value}"
    return pd.DataFrame([{"method": name} | {
        f"{rate:g}": f"{v:.4f}" + " ✓"*(v == min(values.values())) for rate, v in values.items()}
        for name, values in tried.items()])


def chosen_images(rows, mask_set):
    "Worst, median and best image of `mask_set` by LPIPS (else hole L1) over trained rows and seeds, by name"
    images = pd.DataFrame([image for row in rows if row.histories for card in row.cards
                           for image in card["images"] if image["set"] == mask_set])
    values = images["lpips"].astype(float).fillna(images["hole_l1"])
    ranked = values.groupby(images["name"]).sum().sort_values(ascending=False, kind="stable").index
    return {"worst": ranked[0], "median": ranked[len(ranked)//2], "best": ranked[-1]}
