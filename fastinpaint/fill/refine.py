"LaMa's feature refiner (Kulshreshtha et al. 2022): large fills keep the structure of smaller ones"
import warnings
from itertools import pairwise

import torch
import torch.nn.functional as F
from fastprogress import progress_bar

from ..core.device import evaluating
from ..core.errors import InputError
from ..core.limits import go_on, told
from ..kernels import masked_l1
from ..models.net import composite

ERODED = 7  # pixels from the centre of the paper's 15×15 ellipse to its edge


def refined(net, image, mask, iterations=15, lr=2e-3, shortest=512, pixels=2048**2, progress=True, say=None):
    """Prediction `[1, 3, H, W]` (not composited) whose large structure is that of a smaller fill.

    `image` `[1, 3, H, W]` in [0, 1], 0 in the hole, and `mask` `[1, 1, H, W]`, 1 in it, are halved to
    `shortest` pixels or less, and filled by `net`, an `InpaintNet`. At each larger size, `iterations`
    steps of Adam move the refiner's input towards the smaller fill; the lowest loss wins. Sizes beyond
    `pixels` are only enlarged, with a warning, as steps take memory. `say` is given a line about what was
    done, a text. Deterministic on a CPU.
    Raises InputError for a model without refiner blocks, `iterations` below 0, `shortest` below 1."""
    if not len(getattr(net.refiner, "blocks", ())):
        raise InputError(f"{type(net).__name__} has no refiner blocks, whose input is refined: "
                         "take a model of lama() with blocks, of load_lama, or fill without refine")
    if iterations < 0 or shortest < 1:
        raise InputError(f"no refining with {iterations=} and {shortest=}: at least 0 and 1")
    with torch.inference_mode(False), torch.no_grad(), evaluating(net):
        scales = [(image.clone(), mask.clone())]  # smallest first; autograd refuses inference tensors
        while min(scales[0][0].shape[-2:]) > shortest: scales.insert(0, half(*scales[0]))
        filled = scales[sum(x[0, 0].numel() <= pixels for x, _ in scales[1:])][0]
        if filled is not scales[-1][0]:
            (h, w), (fh, fw) = image.shape[-2:], filled.shape[-2:]
            warnings.warn(f"{w}x{h} is more than the {pixels} pixels allowed for refining: filled "
                          f"at {fw}x{fh} and enlarged; with memory to spare, allow more", stacklevel=2)
        pred, done = net(*scales[0]), [f"filled at {measures(scales[0][0])}"]
        for small, (x, m) in pairwise(scales):
            guide, inside = composite(pred, *small), eroded(small[1])
            if x[0, 0].numel() > pixels:
                pred, how = doubled(guide)[..., :x.shape[-2], :x.shape[-1]], "enlarged"
            elif inside.any():
                pred, losses = optimised(net, x, m, guide, inside, iterations, lr, progress)
                how = f"{iterations} steps, loss {losses[0]:.4f} to {min(losses):.4f}"
            else: pred, how = net(x, m), "filled anew, as the hole is too thin to be guided"
            done.append(f"{measures(x)} {how}")
    if say:
        if len(scales) == 1: done.append(f"nothing to refine up to {shortest} pixels on the shorter side")
        say("; ".join(done))
    return pred


def measures(image): return "x".join(map(str, image.shape[:-3:-1]))


def optimised(net, image, mask, guide, inside, iterations, lr, progress):
    "The prediction closest to `image` outside of `mask` and, halved, to `guide` `inside`; each step's loss"
    (h, w), latent = image.shape[-2:], net.encode(image, mask).float().requires_grad_()
    adam, losses, steps = torch.optim.Adam([latent], lr), [], range(iterations + 1)
    # weights that turn means over all pixels into means over those compared
    missing, known = 1/inside.mean().item(), 1/max(1 - mask.mean().item(), 1e-6)
    with torch.enable_grad():
        for step in progress_bar(steps) if progress else told(steps):
            go_on()
            pred = net.decode(net.refine(latent), image, mask)[..., :h, :w]
            structure = masked_l1(halved(pred), guide, inside, 0., missing)
            loss = structure + masked_l1(pred, image, mask, known, 0.)
            losses.append(loss.item())
            if losses[-1] == min(losses): found = pred.detach()
            if step < iterations:
                latent.grad, = torch.autograd.grad(loss, latent)
                adam.step()
    return found, losses


def half(image, mask):
    "`image`, 0 in the hole of `mask`, and `mask`, halved: a pixel is known if most under it is"
    known = halved(1 - mask)
    hole = (known <= .5).to(mask)
    return halved(image*(1 - mask))/known.clamp_min(.5)*(1 - hole), hole


def halved(x):
    "`x` `[B, C, H, W]` blurred with a 5×5 Gaussian of σ 1 and halved, rounding sizes up"
    bell = torch.exp(-torch.arange(-2., 3, device=x.device)**2/2).to(x)
    kernel = (bell.outer(bell)/bell.sum()**2).expand(x.shape[1], 1, 5, 5)
    blurred = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, groups=x.shape[1])
    return F.avg_pool2d(blurred, 2, ceil_mode=True)


def doubled(x):
    "`x` `[B, C, h, w]` at twice the size: pixel `i` becomes `2·i` and `2·i + 1`, as in `halved`"
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def eroded(mask):
    "`mask` `[B, 1, H, W]` without the pixels that have a known one within `ERODED` of them"
    i = torch.arange(-ERODED, ERODED + 1, device=mask.device)
    disc = (i[:, None]**2 + i**2 < (ERODED + .5)**2).to(mask)
    return (F.conv2d(1 - mask, disc[None, None], padding=ERODED) < .5).to(mask)
