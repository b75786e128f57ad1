"Tables of a comparison: the rows of the ladder side by side"
import statistics

import numpy as np
import pandas as pd

from fastinpaint.judge.bootstrap import bootstrap
from fastinpaint.train.callback.step_times import PARTS

from .rows import Row

METRICS = {"hole_l1": "hole L1", "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS", "lpips_vgg": "LPIPS-VGG"}
DISTANCES = {"fid": "FID", "fd_efflite0": "FD", "kid_efflite0": "KID"}
TITLES = METRICS | DISTANCES
# thesis, Table 5.1: FID, LPIPS, SSIM and hours of each row
THESIS = {name: dict(zip(("FID", "LPIPS", "SSIM", "time"), values, strict=True)) for name, values in {
    "lama_l1": (16.6, .155, .865, 6.), "mask_control": (16., .153, .884, 6.4),
    "latent": (18.3, .163, .878, 4.), "latent_control": (12.4, .149, .888, 4.3)}.items()}
BASE = "lama_l1"


def spread(values):
    "Mean and, of several seeds, ± standard deviation"
    if not values: return "n/a"
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"


def relative(value, base): return f"{100*(value/base - 1):+.1f} %" if base else "–"


def change(ours, base):
    "From the mean of `base` to that of `ours`"
    return relative(*map(statistics.mean, (ours, base))) if ours and base else "–"


def thesis_change(name, what):
    "The thesis' change of FID, LPIPS, SSIM or time from its row (1)"
    return relative(THESIS[name][what], THESIS[BASE][what]) if name in THESIS else "–"


def _row(rows, name): return next((r for r in rows if r.name == name), Row(name, [], []))


def lpips_of(rows, group):
    "The LPIPS to read: by VGG, the thesis' network, where the rows have it"
    return "lpips_vgg" if any(r.values("lpips_vgg", group) for r in rows) else "lpips"


def results_table(rows, group):
    "Metrics over seeds, minutes, and changes from the baseline beside those of the thesis"
    base, lpips = _row(rows, BASE), lpips_of(rows, group)
    shown = [m for m in METRICS if m in ("hole_l1", "psnr", "ssim", "lpips", lpips)]
    def line_of(row):
        seconds = row.seconds()
        line = {"method": row.name} | {METRICS[m]: spread(row.values(m, group)) for m in shown}
        line["minutes"] = f"{statistics.mean(seconds)/60:.1f}" if seconds else "–"
        for m, what in (lpips, "LPIPS"), ("ssim", "SSIM"):
            line[f"{METRICS[m]} from (1)"] = change(row.values(m, group), base.values(m, group))
            line[f"thesis, {what}"] = thesis_change(row.name, what)
        return line | {"time from (1)": change(seconds, base.seconds()),
                       "thesis, time": thesis_change(row.name, "time")}
    return pd.DataFrame(map(line_of, rows))


def distances_table(rows, group):
    "Distances between sets over seeds, and their changes from the baseline beside the thesis' of FID"
    base = _row(rows, BASE)
    def line_of(row):
        line = {"method": row.name} | {t: spread(row.values(d, group)) for d, t in DISTANCES.items()}
        for d in "fid", "fd_efflite0":
            line[f"{DISTANCES[d]} from (1)"] = change(row.values(d, group), base.values(d, group))
        return line | {"thesis, FID": thesis_change(row.name, "FID")}
    return pd.DataFrame(map(line_of, rows))


def joined_table(ladders):
    "Changes from row (1) in each of `ladders` (name → rows), beside those of the thesis"
    methods = dict.fromkeys(row.name for rows in ladders.values() for row in rows if row.name != BASE)
    return pd.DataFrame([
        {"from (1)": what, "method": name, "thesis": thesis_change(name, "FID" if what == "FD" else what)}
        | {title: _change_in(rows, name, what) for title, rows in ladders.items()}
        for what in ("FID", "FD", "LPIPS", "SSIM", "time") for name in methods],
        columns=["from (1)", "method", "thesis", *ladders])


def _change_in(rows, name, what):
    row, base, group = _row(rows, name), _row(rows, BASE), whole(rows)
    if what == "time": return change(row.seconds(), base.seconds())
    metric = dict(FID="fid", FD="fd_efflite0", LPIPS=lpips_of(rows, group), SSIM="ssim")[what]
    return change(row.values(metric, group), base.values(metric, group))


def whole(rows):
    "The group of all fills in the cards of `rows`: of one mask set, that set"
    return [*rows[0].cards[0]["metrics"]][-1]


def groups_table(rows, metrics, part="metrics"):
    "Each of `metrics` by mask set, or by share of hole (`part` by_area), under the number of fills"
    groups = [name for name in rows[0].cards[0][part] if name != "all"]
    counts = [rows[0].values("n", group, part) for group in groups]
    lines = [["fills", "", *(str(n[0]) if n else "–" for n in counts)]]
    lines += [[row.name, TITLES[m], *(spread(row.values(m, group, part)) for group in groups)]
              for m in metrics for row in rows]
    return pd.DataFrame(lines, columns=["method", "metric", *groups])


def sets_table(rows, lpips="lpips"):
    "LPIPS by mask set over seeds, and the difference from the baseline, its interval over photographs"
    sets = [name for name in rows[0].cards[0]["metrics"] if name != "all"]
    base = next((_by_photograph(r, lpips) for r in rows if r.name == BASE), pd.Series(dtype=float))
    def from_base(row):
        found = _by_photograph(row, lpips)
        if base.empty or found.empty or row.name == BASE: return "–"
        d = bootstrap((found[base.index] - base).to_numpy(), np.ones(len(base)))
        return f"{d['value']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]"
    return pd.DataFrame([{"method": row.name} | {name: spread(row.values(lpips, name)) for name in sets}
                         | {"all, from (1)": from_base(row)} for row in rows])


def _by_photograph(row, lpips):
    "Mean LPIPS of every photograph over mask sets and seeds; empty without LPIPS"
    images = pd.DataFrame([i for card in row.cards for i in card["images"]], columns=["name", lpips])
    return images.dropna().astype({lpips: float}).groupby("name", sort=False)[lpips].mean()


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
