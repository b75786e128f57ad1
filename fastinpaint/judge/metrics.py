"""Metrics on composites: the prediction inside the hole, the photograph outside it.

Each is a fastai `Metric`; elsewhere, `update` it with each batch and read its `value`, which is over all
processes of a distributed run and read by each. Without one it shows as "n/a", NaN in arithmetic."""
from functools import cache, cached_property

import torch
from fastai.learner import Metric
from torch import Tensor

from ..core.errors import InputError
from ..core.together import total as sums
from ..models.net import composite
from ..models.pretrained import TRUNKS, WeightsMissing, lpips_net


class _NotAvailable(float):
    'A NaN that tables and log files show as "n/a"'
    def __str__(self): return "n/a"
    def __format__(self, spec): return "n/a"
    __repr__ = __str__


NA = _NotAvailable("nan")
torch.serialization.add_safe_globals([_NotAvailable])  # checkpoints hold a table of metrics
_print_once = cache(print)


class InpaintMetric(Metric):
    """Mean over images with a hole, whose sums stay on the device until `value` is asked for.

    A subclass's `measure(composite, image, mask)` gives two tensors `[B]`: of each image a sum and its number
    of summands."""
    min_size = 1  # shortest side that the metric can work with, in pixels
    def __init__(self): self.reset()
    def reset(self): self.kept = []  # of each batch
    def accumulate(self, learn): self.update(learn.pred, *learn.yb)

    def update(self, pred: Tensor, image: Tensor, mask: Tensor):
        """Add a batch: `pred` and `image` [B,3,H,W] in [0, 1], `mask` [B,1,H,W], 1 = hole.

        Raises ValueError for other shapes, InputError for images too small for the metric."""
        self._check(pred, image, mask)
        # in float32 also inside autocast: half precision moves the third digit of these metrics
        with torch.no_grad(), torch.autocast(pred.device.type, enabled=False):
            if not len(image): return
            pred, image, mask = (x.as_subclass(Tensor).float() for x in (pred, image, mask))
            found = torch.stack(self.measure(composite(pred, image, mask), image, mask))
            holed = mask.flatten(1).any(1).to(found.device)
            self.kept.append(torch.where(holed, found, 0.).sum(1))

    @property
    def value(self) -> float:
        # the sum of many batches needs digits that not every device has
        total, count = sums(torch.stack(self.kept).cpu().double().sum(0) if self.kept else [0, 0])
        return total / count if count else NA

    def _check(self, pred, image, mask):
        b, _, h, w = image.shape if image.ndim == 4 else (0, 0, 0, 0)
        shapes = [list(x.shape) for x in (pred, image, mask)]
        if shapes != [[b, 3, h, w], [b, 3, h, w], [b, 1, h, w]]:
            raise ValueError(f"{self.name} takes prediction and image [B,3,H,W] and mask [B,1,H,W], "
                             "got {}, {} and {}".format(*shapes))
        if min(h, w) < (least := self.min_size):
            raise InputError(f"{self.name} needs images of at least {least} pixels a side, got {h} x {w}")


class HoleL1(InpaintMetric):
    "Mean absolute error over all hole pixels of the set and their three channels, in [0, 1]"
    name = "hole_l1"
    def measure(self, filled, image, mask):
        return ((filled - image).abs() * mask).sum((1, 2, 3)), 3 * mask.sum((1, 2, 3))


class PSNR(InpaintMetric):
    "Mean over images of the peak signal-to-noise ratio of the composite in dB, at most 100"
    name = "psnr"
    def measure(self, filled, image, mask):
        mse = (filled - image).square().mean((1, 2, 3)).clamp(min=1e-10)
        return -10 * mse.log10(), torch.ones_like(mse)


class SSIM(InpaintMetric):
    "Mean structural similarity of composites (Wang et al. 2004: 11 x 11 window, sigma 1.5)"
    name, min_size = "ssim", 11
    def measure(self, filled, image, mask):
        from torchmetrics.functional.image import structural_similarity_index_measure  # takes a second
        found = structural_similarity_index_measure(filled, image, data_range=1., reduction="none")
        return found, torch.ones_like(found)


class Grid(InpaintMetric):
    """Mean over images of the grid of latent pixels in a fill: 1 has none, photographs lie near it.

    The mean step of brightness across every `period`-th row and column, where neighbouring latent pixels
    meet, as a multiple of that across the others; both pixels of a step lie in the hole."""
    name = "grid"
    def __init__(self, period=8):
        super().__init__()
        self.period, self.min_size = period, 2*period

    def measure(self, filled, image, mask):
        brightness = filled.mean(1, keepdim=True)
        sums = self._steps(brightness, mask) + self._steps(brightness.mT, mask.mT)
        at, n_at, between, n_between = sums.unbind()
        found = (n_at > 0) & (between > 0)  # what is flat has no grid
        return torch.where(found, (at/n_at)/(between/n_between), 0.), found.float()

    def _steps(self, brightness, mask):
        "`[4, B]`: the sum and the number of steps between columns at borders of latent pixels, and of others"
        steps, inside = brightness.diff(dim=-1).abs(), mask[..., 1:]*mask[..., :-1]
        border = torch.arange(1, mask.shape[-1], device=mask.device) % self.period == 0
        parts = inside*border, inside*~border
        return torch.stack([x.sum((1, 2, 3)) for part in parts for x in (steps*part, part)])


class NetworkMetric(InpaintMetric):
    """A metric by a pretrained network; "n/a" where its weights are missing.

    Of a subclass, `load()` gives it or raises WeightsMissing; `compare(filled, image, mask)` is `measure`."""
    @cached_property
    def net(self):
        "The network, loaded with the first batch; None where it is missing"
        try: return self.load()
        except WeightsMissing as error: _print_once(f"{self.name}: n/a. {error}")

    def measure(self, filled, image, mask):
        if self.net is None: return [image.new_zeros(len(image))]*2
        # MPS has no float64
        if filled.device.type == "mps": filled, image, mask = filled.cpu(), image.cpu(), mask.cpu()
        self.net.to(filled.device)
        return self.compare(filled, image, mask)


class LPIPS(NetworkMetric):
    "Mean learned perceptual distance (Zhang et al. 2018) by the trunk `net`: alex, vgg, else InputError"
    name = "lpips"
    def __init__(self, net: str = "alex"):
        super().__init__()
        if net not in TRUNKS: raise InputError(f"LPIPS has the trunks {', '.join(TRUNKS)}, not {net!r}")
        self.trunk = net
        if net != "alex": self.name = f"lpips_{net}"
        self.min_size = 31 if net == "alex" else 16  # below, the trunk's pooling leaves nothing

    def load(self): return lpips_net(self.trunk)

    def compare(self, filled, image, mask):
        found = self.net(filled, image, normalize=True).flatten()
        return found, torch.ones_like(found)


def default_metrics(trunk: str = "alex") -> list:
    "What every validation shows: hole L1, PSNR, SSIM and LPIPS by `trunk`"
    return [HoleL1(), PSNR(), SSIM(), LPIPS(trunk)]
