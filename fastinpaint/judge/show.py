"Pictures of batches, results and latent damage"
import matplotlib.pyplot as plt
import torch
from fastcore.basics import patch

from ..core.device import evaluating
from ..data.loaders import InpaintDL
from ..models.net import composite

OUTLINE = (1., .1, .5)  # a colour that photographs rarely hold


def outlined(image, mask):
    "`image` `[B, 3, H, W]` with the edge of the hole in `mask` `[B, 1, H, W]` drawn on it"
    edge = torch.nn.functional.max_pool2d(mask, 3, stride=1, padding=1) - mask
    return image*(1 - edge) + edge*image.new_tensor(OUTLINE).view(1, 3, 1, 1)


def show_rows(columns, max_n=4, height=2.2):
    "A figure of a dict of title → images `[B, 3, H, W]` in [0, 1]: a column for each, a row for each image"
    images = {k: x[:max_n].detach().float().clamp(0, 1).cpu() for k, x in columns.items()}
    rows, _, h, w = next(iter(images.values())).shape
    figsize = len(images)*height*w/h, rows*height + .3
    fig, axes = plt.subplots(rows, len(images), figsize=figsize, squeeze=False)
    for (title, pictures), column in zip(images.items(), axes.T, strict=True):
        column[0].set_title(title, fontsize=10)
        for axis, picture in zip(column, pictures, strict=True):
            axis.imshow(picture.permute(1, 2, 0))
            axis.set_axis_off()
    fig.tight_layout(pad=.3)
    return fig


def batch_columns(masked, mask, image, *_, pred=None):
    "Masked input, outlined hole, the composite of `pred` if given, and original, by title"
    columns = {"masked input": masked, "hole": outlined(image, mask)}
    if pred is not None: columns["result"] = composite(pred, image, mask)
    return columns | {"original": image}


@patch
def show_batch(self: InpaintDL, b=None, max_n=4, **kwargs):
    "Masked input, outlined hole and original of a batch, side by side; returns the figure"
    return show_rows(batch_columns(*(self.one_batch() if b is None else b)), max_n)


@patch
def show_results(self: InpaintDL, b, out, max_n=4, **kwargs):
    "Masked input, outlined hole, result and original side by side; returns the figure"
    return show_rows(batch_columns(*b, pred=out.to(b[0].device)), max_n)


def show_latent_damage(learn, max_n=4):
    "What a hole does to the features (thesis, Eq. 4.1, Fig. 4.4): grey where it damages none"
    masked, mask, image, _ = learn.dls.valid.one_batch()
    with evaluating(learn.model): return damage_figure(learn.model, image, masked, max_n)


@torch.no_grad()
def damage_figure(model, image, masked, max_n=4, height=2.2):
    "The figure of `latent_damage` beside the images"
    columns = {"masked input": masked, "original": image}
    return show_rows(columns | {"decoded difference": latent_damage(model, image, masked)}, max_n, height)


def latent_damage(model, image, masked):
    "Decoded difference `D[E(image) - E(masked)]` `[B, 3, H, W]` of thesis Eq. 4.1, plain encoder"
    h, w = image.shape[-2:]
    return model.decode(model.encode(image) - model.encode(masked))[..., :h, :w]


def results_figure(learn, max_n=4):
    "The first validation images and their fills, drawn by `show_results`; returns the figure"
    batch = learn.dls.valid.one_batch()
    with learn.no_bar(): pred, _ = learn.get_preds(dl=[batch])
    return learn.dls.valid.show_results(batch, pred, max_n=max_n)
