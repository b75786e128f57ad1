"The first run of a newcomer: train, compare with three simple fills, and show them"
from pathlib import Path

import pandas as pd
import torch

from fastinpaint import all as fi
from fastinpaint.judge.baselines import mean_colour, smooth_fill, telea
from fastinpaint.judge.show import outlined, show_rows
from fastinpaint.recipes import latent_control

from .settings import DemoSettings
from .texture import with_texture


def compare(dl, fills):
    "Metrics of each of `fills` (name → `fill(image, mask)`) on all of `dl`, and its first batch"
    rows, first = {}, {}
    for name, fill in fills.items():
        metrics = [fi.HoleL1(), fi.SSIM(), fi.LPIPS()]
        for batch in dl:
            _, _, image, mask = (x.as_subclass(torch.Tensor).cpu() for x in batch)
            pred = fill(image, mask)
            for m in metrics: m.update(pred, image, mask)
            first.setdefault(name, fi.composite(pred, image, mask))
        rows[name] = {m.name: m.value for m in metrics}
    return rows, first


def main(settings: DemoSettings):
    "Train, print the table and draw `results.png`; returns the table, fill → metric → value"
    learn = latent_control.main(**vars(settings))
    model, device = learn.model.eval(), learn.dls.device

    @torch.no_grad()
    def ours(image, mask):
        image, mask = image.to(device), mask.to(device)
        return model(image*(1 - mask), mask).cpu()

    # the encoder sees the smooth fill: the step from it to latent_control is what was learned
    fills = {"mean colour": mean_colour, "smooth fill": smooth_fill, "Telea (OpenCV)": telea}
    fills |= {"latent_control": ours, "with texture": with_texture(ours)}
    table, filled = compare(learn.dls.valid, fills)
    masked, mask, image, _ = learn.dls.valid.one_batch()
    file = Path(settings.out)/"latent_control/results.png"
    columns = {"masked input": masked, "hole": outlined(image, mask)} | filled | {"original": image}
    show_rows(columns, max_n=8, height=1.8).savefig(file, dpi=110)
    print(f"\n{len(learn.dls.valid_ds)} photographs never trained on "
          "(hole L1 and LPIPS: lower is better, SSIM: higher)\n")
    printed = pd.DataFrame(table).T.rename("{:16}".format)
    print(printed.to_string(float_format="{:.4f}".format, na_rep="n/a", col_space=9))
    print(f"\nOpen {file}: each row is one photograph, its hole, the fills and the original.")
    return table
