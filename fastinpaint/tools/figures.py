"Figures of a comparison: training curves, the same holes filled by every row, latent damage"
import matplotlib.pyplot as plt
import torch

from fastinpaint.judge import show
from fastinpaint.models.net import composite

from .rows import lpips_in
from .tables import METRICS


def curves(rows):
    "Validation LPIPS and hole L1 by epochs and minutes, a line a seed, cut at twice the best run's end"
    trained = [r for r in rows if r.histories]
    fig, axes = plt.subplots(2, 2, figsize=(11, 7))
    for (left, right), metric in zip(axes, (lpips_in(trained[0].histories[0]), "hole_l1"), strict=True):
        for colour, row in enumerate(trained):
            for i, history in enumerate(row.histories):
                style = dict(color=f"C{colour}", label=row.name if i == 0 else None, lw=1)
                left.plot(history["epoch"] + 1, history[metric], **style)
                right.plot(history["seconds"]/60, history[metric], **style)
        ends = [end for r in trained for h in r.histories if (end := h[metric].iat[-1]) == end]
        for axis in left, right:
            axis.set_ylabel(METRICS[metric])
            if ends: axis.set_ylim(.9*min(ends), 2*min(ends))
    axes[1, 0].set_xlabel("epochs of equally many steps")
    axes[1, 1].set_xlabel("minutes of training")
    axes[0, 0].legend(fontsize=8)
    fig.tight_layout()
    return fig


@torch.no_grad()
def grid(items, fills):
    "The same holes filled by every row. `items`: of the protocol; `fills`: name → `fill(image, mask)`"
    image, mask = stacked(items)
    filled = {name: composite(fill(image*(1 - mask), mask), image, mask) for name, fill in fills.items()}
    columns = {"hole": show.outlined(image, mask)} | filled | {"original": image}
    return show.show_rows(columns, max_n=len(items), height=1.6)


def latent_damage(model, items):
    "`damage_figure` of these photographs and the network `model`"
    image, mask = stacked(items)
    return show.damage_figure(model, image, image*(1 - mask), mask, len(items), 1.6)


def stacked(items):
    "Images `[B, 3, H, W]` in [0, 1] and masks `[B, 1, H, W]`"
    images, masks = zip(*(item.tensors() for item in items), strict=True)
    return torch.cat(images), torch.cat(masks)
