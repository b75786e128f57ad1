"Rows of a comparison as their files tell them"
import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fastinpaint.core.errors import InputError


@dataclass
class Row:
    "A method: a card as a dict for each seed, histories and parts of a step of its runs"
    name: str
    cards: list
    histories: list  # of `read_history`; none for a method that needs no training
    parts: list = field(default_factory=list)  # dicts of the `PARTS` of a step, in seconds

    def values(self, metric, group, part="metrics"):
        "Over seeds, without cards that lack it; in the `part` by_area of a card, `group` is a share of hole"
        found = [card[part].get(group, {}).get(metric, {}).get("value") for card in self.cards]
        return [v for v in found if v is not None]

    def seconds(self): return [float(history["seconds"].iat[-1]) for history in self.histories]


def read_row(name, folders):
    "The `Row` of a method by the files in the folder of each of its runs, one a seed"
    cards = [json.loads((f/"card.json").read_text()) for f in folders]
    parts = [json.loads(p.read_text()) for f in folders if (p := f/"step.json").is_file()]
    return Row(name, cards, [read_history(f/"metrics.csv") for f in folders], parts)


def finished_rows(folder, names):
    "Those of the rows `names` that a comparison in `folder` has finished. Raises InputError where none is"
    cards = {name: sorted(Path(folder).glob(f"seed*/{name}/card.json")) for name in names}
    rows = [read_row(name, [card.parent for card in found]) for name, found in cards.items() if found]
    if not rows: raise InputError(f"no finished comparison in {folder}: there is no seed0/ROW/card.json")
    return rows


def read_history(path):
    "The DataFrame of a `metrics.csv`, with `seconds` from the start to the end of each epoch"
    history = pd.read_csv(path)  # reads n/a as NaN
    spent = history.get("seconds", history["time"].map(_seconds))  # of a run of before, whole ones
    return history.assign(seconds=spent.cumsum())


def lpips_in(names): return "lpips" if "lpips" in names else "lpips_vgg"


def _seconds(clock):
    "Of minutes:seconds or hours:minutes:seconds"
    return sum(int(part)*60**i for i, part in enumerate(reversed(clock.split(":"))))
