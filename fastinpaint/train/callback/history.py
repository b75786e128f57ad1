"Losses and metrics of every epoch as a CSV file"
import time
from pathlib import Path

from ...core.files import replacing
from ...core.ranks import is_main
from .fit import FitCallback


class History(FitCallback):
    "Writes every epoch's losses, metrics and seconds to the CSV file `path`; rows of a resumed run stay"
    order = 80  # before Checkpoint, whose file takes the rows along
    in_lr_find = False
    def __init__(self, path): self.path, self.rows = Path(path), []

    def before_epoch(self): self.begun = time.perf_counter()

    def after_trained_epoch(self):
        values = [v if isinstance(v, int | float) else str(v) for v in self.recorder.log]
        row = dict(zip(self.recorder.metric_names, values, strict=True))
        spent = {"seconds": round(time.perf_counter() - self.begun, 3)}  # fastai's time has no fractions
        self.rows.append(row | spent | self.step_log.health.means())
        if not is_main(): return
        names = list(self.rows[0])
        table = [names, *([str(row.get(k, "")) for k in names] for row in self.rows)]
        with replacing(self.path) as f: f.write("".join(",".join(o) + "\n" for o in table).encode())

    def state_dict(self): return {"rows": self.rows}
    def load_state_dict(self, state): self.rows = state["rows"]
