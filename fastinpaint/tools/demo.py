"The first run of a newcomer: train, compare with three simple fills on photographs never trained on, and show them"
from pathlib import Path

import torch

from fastinpaint.all import *
from fastinpaint.judge.baselines import mean_colour, smooth_fill, telea
from fastinpaint.judge.show import outlined, show_rows
from fastinpaint.recipes import latent_control


def compare(dl, fills):
    "Table of metrics on all of `dl` for a dict of name → `fill(image, mask)`, and the fills of the first batch"
    rows, first = {}, {}
    for name, fill in fills.items():
        metrics = [HoleL1(), SSIM(), LPIPS()]
        for batch in dl:
            _, _, image, mask = (x.as_subclass(torch.Tensor).cpu() for x in batch)
            pred = fill(image, mask)
            for m in metrics: m.update(pred, image, mask)
            first.setdefault(name, composite(pred, image, mask))
        rows[name] = {m.name: m.value for m in metrics}
    return rows, first


@call_parse
@recipe_flags
def main(out: str = "runs/demo", blocks: int = 5, steps: int = 2800, **kwargs):
    "Train `latent_control` on the bundled photographs, then compare it with fills that need no training"
    # a refiner of five blocks takes more steps in the same minutes than the published nine
    learn = latent_control.main(out=out, blocks=blocks, steps=steps, **kwargs)
    model, device = learn.model.eval(), learn.dls.device

    @torch.no_grad()
    def ours(image, mask):
        image, mask = image.to(device), mask.to(device)
        return model(image*(1 - mask), mask).cpu()

    # the smooth fill is what the encoder is given, so the step from it to latent_control is what was learned
    fills = {"mean colour": mean_colour, "smooth fill": smooth_fill, "Telea (OpenCV)": telea, "latent_control": ours}
    table, filled = compare(learn.dls.valid, fills)
    masked, mask, image, _ = learn.dls.valid.one_batch()
    folder = Path(out)/"latent_control"
    picture = {"masked input": masked, "hole": outlined(image, mask)} | filled | {"original": image}
    show_rows(picture, max_n=8, height=1.8).savefig(folder/"results.png", dpi=110)
    print(f"\n{len(learn.dls.valid_ds)} photographs never trained on (hole L1 and LPIPS: lower is better, SSIM: higher)\n")
    print(f"{'':16}" + "".join(f"{m:>10}" for m in next(iter(table.values()))))
    for name, row in table.items(): print(f"{name:16}" + "".join(f"{v:>10.4f}" for v in row.values()))
    print(f"\nOpen {folder/'results.png'}: each row is one photograph, its hole, the fills and the original.")
    return table
