"Pictures of batches, results and latent damage"
import matplotlib.pyplot as plt
import torch
from fastai.torch_core import TensorImage, TensorMask
from fastcore.basics import patch
from plum import dispatch

from ..core.device import evaluating
from ..data.loaders import InpaintDL
from ..kernels.prefill import smooth_fill
from ..models.net import composite

OUTLINE = (1., .1, .5)  # a colour that photographs rarely hold
FILLS = 4  # of each hole, in pictures of a model that generates


def outlined(image, mask):
    "`image` `[B, 3, H, W]` with the edge of the hole in `mask` `[B, 1, H, W]` drawn on it"
    edge = torch.nn.functional.max_pool2d(mask, 3, stride=1, padding=1) - mask
    return image*(1 - edge) + edge*image.new_tensor(OUTLINE).view(1, 3, 1, 1)


def show_rows(columns, max_n=4, height=2.2):
    "A figure of a dict of title → images `[B, 3, H, W]` in [0, 1]: a column for each, a row for each image"
    images = {k: x[:max_n].detach().float().clamp(0, 1).cpu() for k, x in columns.items()}
    rows, _, h, w = next(iter(images.values())).shape
    figsize = len(images)*height*w/h, rows*height + .3 + .17*max(title.count("\n") for title in images)
    fig, axes = plt.subplots(rows, len(images), figsize=figsize, squeeze=False)
    for (title, pictures), column in zip(images.items(), axes.T, strict=True):
        column[0].set_title(title, fontsize=10)
        for axis, picture in zip(column, pictures, strict=True):
            axis.imshow(picture.permute(1, 2, 0))
            axis.set_axis_off()
    fig.tight_layout(pad=.3)
    return fig


@torch.no_grad()
def other_fills(net, masked, mask, n=FILLS - 1):
    "Predictions `[B, 3, H, W]` by the seeds 1 to `n` of a `net` that generates; none by others"
    if not getattr(net, "generates", False): return []
    with evaluating(net): return [net(masked, mask, seed=seed) for seed in range(1, n + 1)]


def batch_columns(masked, mask, image, *_, pred=None, others=()):
    "Masked input, outlined hole, the composite of `pred` if given, those of `others`, and original, by title"
    columns = {"masked input": masked, "hole": outlined(image, mask)}
    if pred is not None: columns["result"] = composite(pred, image, mask)
    columns |= {f"seed {i}": composite(other, image, mask) for i, other in enumerate(others, 1)}
    return columns | {"original": image}


def batch_figure(batch, pred=None, max_n=4, net=None):
    """The figure of the `batch_columns` of `batch`, masked, mask, image and mask.

    Of a `net` that generates there are results of other seeds, too."""
    batch = [x[:max_n] for x in batch]
    pred = None if pred is None else pred[:max_n]
    return show_rows(batch_columns(*batch, pred=pred, others=other_fills(net, *batch[:2])), max_n)


# a notebook shows a figure that is drawn, and once more one that a cell ends with: so none is returned

@patch
def show_batch(self: InpaintDL, b=None, max_n=4, **kwargs):
    "Masked input, outlined hole and original of a batch, side by side"
    batch_figure(self.one_batch() if b is None else b, max_n=max_n)


@patch
def show_results(self: InpaintDL, b, out, max_n=4, net=None, **kwargs):
    "Masked input, outlined hole, result and original side by side; several results of a `net` that generates"
    batch_figure(b, out.to(b[0].device), max_n, net)


@dispatch
def plot_top_losses(x: tuple[TensorImage, TensorMask], y, samples, outs, raws, losses, **kwargs):
    "What `Interpretation.plot_top_losses` of fastai shows: results, each with its loss"
    fig = batch_figure((*x, *y), raws, len(losses))
    for axis, loss in zip(fig.axes[2::4], losses, strict=True):
        axis.set_title(f"{axis.get_title()}\nloss {loss.item():.4f}".strip(), fontsize=10)
    fig.tight_layout(pad=.3)


def show_latent_damage(learn, max_n=4):
    "The `damage_figure` of the first validation images"
    masked, mask, image, _ = learn.dls.valid.one_batch()
    with evaluating(learn.model): damage_figure(learn.model, image, masked, mask, max_n)


@torch.no_grad()
def damage_figure(model, image, masked, mask, max_n=4, height=2.2):
    "`latent_damage` beside the images, and the mean absolute latent difference in the hole and elsewhere"
    image, masked, mask = (x[:max_n].as_subclass(torch.Tensor) for x in (image, masked, mask))
    columns = {"masked input": masked, "original": image}
    for title, difference in latent_differences(model, image, masked, mask).items():
        hole, rest = mean_inside_and_outside(difference.abs(), model.pad(mask))
        columns[f"{title}\nhole {hole:.4f}\nelsewhere {rest:.4f}"] = decoded(model, difference, image)
    fig = show_rows(columns, max_n, height)
    about = "right: the decoded latent difference from the original (grey: none) and its mean size"
    fig.supxlabel(about, fontsize=9)
    fig.tight_layout(pad=.3)
    return fig


def latent_damage(model, image, masked, mask):
    """What a hole does to the features, and what is left of it (thesis, Eq. 4.1, Fig. 4.4).

    The decoded `latent_differences` by title, `[B, 3, H, W]`: one grey where there is none. Differences are
    decoded as they are, whatever the decoder makes of zeros."""
    differences = latent_differences(model, image, masked, mask)
    return {title: decoded(model, difference, image) for title, difference in differences.items()}


def latent_differences(model, image, masked, mask):
    """`E(image)` minus the latent before control, after it and after the refiner: title → `[B, C, h, w]`.

    Before control is the plain encoder on what it is given: where the model has one, on the prefill."""
    given, encoded = model.pad(masked), model.encode(masked, mask)
    if model.prefill: given = smooth_fill(given, model.pad(mask))
    latents = {"before control": model.encoder(given), "after control": encoded,
               "after refiner": model.refine(encoded)}
    whole = model.encode(image)
    return {title: whole - latent for title, latent in latents.items()}


def decoded(model, difference, image):
    "`difference` as a picture of the size of `image`"
    h, w = image.shape[-2:]
    return model.decode(difference)[..., :h, :w]


def mean_inside_and_outside(values, mask):
    "Means of `values` `[B, C, h, w]` weighted by the share of hole behind them, and by the rest"
    share = torch.nn.functional.adaptive_avg_pool2d(mask, values.shape[-2:])
    return [((weight*values).mean()/weight.mean()).item() for weight in (share, 1 - share)]


def results_figure(learn, max_n=4):
    "The figure of the first validation images and their fills"
    batch = learn.dls.valid.one_batch()
    with learn.no_bar(): pred, _ = learn.get_preds(dl=[batch])
    return batch_figure(batch, pred.to(batch[0].device), max_n, learn.model)
