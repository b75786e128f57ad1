"The card that an evaluation ends in"
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from ..core.files import replacing


@dataclass
class Card:
    "What was judged, on what, by which rules, and how it did"
    model: dict
    data: dict
    rules: dict
    metrics: dict      # mask set (and "all") → metric → value, low and high
    by_area: dict      # share of hole → the same
    drift: float
    seconds: dict      # part of the evaluation (reading, filling, each metric) → mean of an image
    environment: dict
    notes: list = field(default_factory=list)
    images: list = field(default_factory=list)  # set, name, share, drift and metrics of each

    def save(self, folder):
        "Write `card.json` and `card.md` to `folder`, each replaced whole or not at all"
        data = json.dumps(asdict(self), indent=1, default=str)
        texts = {Path(folder)/"card.json": data, Path(folder)/"card.md": self.markdown()}
        for file, text in texts.items():
            with replacing(file) as f: f.write(text.encode())
        return [*texts]

    def markdown(self):
        "The card as a page"
        spent = ", ".join(f"{part} {1000*s:.1f}" for part, s in self.seconds.items())
        about = {k: getattr(self, k) for k in ("model", "data", "rules", "environment")}
        return "\n".join([
            f"# {self.model['name']}", "", f"{self.data['images']} photographs, {self.rules['size']}; "
            f"holes: {', '.join(self.data['masks'])}, seed {self.rules['seed']}. "
            "Brackets are bootstrap 95 % intervals.", "",
            *_table("mask set", self.metrics), "", *_table("share of hole", self.by_area), "",
            f"Known pixels moved by {self.drift:.5f} on average (of 1) before compositing.", "",
            f"Milliseconds an image on {self.environment['device']}: {spent}.", "",
            *(f"* {note}" for note in self.notes), "",
            "```json", json.dumps(about, indent=1, default=str), "```", ""])


def markdown_table(frame):
    "The DataFrame `frame`, without its index, as lines of a Markdown table"
    head, *rows = [f"| {' | '.join(map(str, row))} |" for row in [frame, *frame.itertuples(index=False)]]
    return [head, "|---"*len(frame.columns) + "|", *rows]


def _table(title, groups):
    "Lines of a table of `groups` (name → metric → value), with the metrics of the first group"
    rows = [{title: name} | {k: _cell(v) for k, v in found.items()} for name, found in groups.items()]
    return markdown_table(pd.DataFrame(rows, columns=rows[0] if rows else [title]).fillna(""))


def _cell(found):
    "A metric's value and interval as text"
    if found["value"] is None: return "n/a"
    if isinstance(found["value"], int): return str(found["value"])
    interval = f" [{found['low']:.4f}, {found['high']:.4f}]" if "low" in found else ""
    return f"{found['value']:.4f}{interval}"
