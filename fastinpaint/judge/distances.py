"Distances between a set of fills and their photographs, by features of a pretrained network"
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from ..core.together import started
from ..models.pretrained import efflite0, inception_features
from .metrics import NA, NetworkMetric

SMALL = 2048  # images below which a Fréchet distance depends mostly on their number


def frechet(real, fake):
    """Fréchet distance (Heusel et al. 2017) of features `[n, d]` and `[m, d]`, in float64.

    With centred features X and Y over √(n−1), the trace of the root of their covariances' product is the
    sum of the singular values of X·Yᵀ, which has at most as many rows as there are images."""
    (mean, x), (mean_fake, y) = map(_moments, (real, fake))
    trace = x.square().sum() + y.square().sum() - 2*torch.linalg.svdvals(x @ y.T).sum()
    return max(0., ((mean - mean_fake).square().sum() + trace).item())  # rounding takes equal sets below 0


def _moments(features):
    "Mean `[d]` and a matrix with at most d rows whose square, `XᵀX`, is the covariance"
    features = features.double()
    mean = features.mean(0)
    x = (features - mean)/(len(features) - 1)**.5
    return mean, torch.linalg.qr(x, mode="r").R if len(x) > x.shape[1] else x


def kernel(real, fake):
    "Kernel distance (Binkowski et al. 2018), mean over 50 random halves, or 1000; unbiased: may lie below 0"
    from torchmetrics.image.kid import KernelInceptionDistance  # takes a second
    size = min(len(real), len(fake), 2000)//2
    metric = KernelInceptionDistance(nn.Identity(), subsets=50, subset_size=size)
    for features, is_real in (real, True), (fake, False): metric.update(features, real=is_real)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return metric.compute()[0].item()


class FeatureDistance(NetworkMetric):
    """A distance between 8-bit composites and photographs by their features.

    Of a subclass, `load()` gives the network, uint8 [B,3,H,W] to [B,d], and `distance(real, fake)` compares
    features; below `least` images there is none."""
    least = 2
    def reset(self):
        super().reset()
        self.real, self.fake = [], []

    def features(self, images):
        "Features [B,d], on the CPU, of `images` [B,3,H,W] in [0, 1]"
        with torch.no_grad(): return self.net.to(images.device)((images*255).round().to(torch.uint8)).cpu()

    def compare(self, filled, image, mask):
        holed = mask.flatten(1).any(1)
        if holed.any():
            self.real.append(self.features(image[holed]))
            self.fake.append(self.features(filled[holed]))
        return [image.new_zeros(len(image))]*2

    def between(self, real, fake):
        return self.distance(real, fake) if min(len(real), len(fake)) >= self.least else NA

    @property
    def value(self) -> float: return self.between(*map(_of_all_processes, (self.real, self.fake)))


def _of_all_processes(kept):
    "All features [n,d] of a list of batches; of a distributed run, of every process's"
    if started():
        lists = [None]*dist.get_world_size()
        dist.all_gather_object(lists, kept)
        kept = sum(lists, [])
    return torch.cat(kept) if kept else torch.empty(0, 0)


class FID(FeatureDistance):
    "Fréchet distance on the 2048 pooled features of Inception v3, as in the literature"
    name, distance = "fid", staticmethod(frechet)
    def load(self): return inception_features()


class FDEffLite0(FeatureDistance):
    "Fréchet distance on the 1280 pooled features of EfficientNet-Lite0; not comparable with FID"
    name, distance = "fd_efflite0", staticmethod(frechet)
    def load(self): return _EffLite0Features()


class KIDEffLite0(FDEffLite0):
    "Kernel distance on the same features"
    name, least, distance = "kid_efflite0", 4, staticmethod(kernel)


class _EffLite0Features(nn.Sequential):
    "uint8 [B,3,H,W] at 224 x 224, scaled as that network was trained, to features [B,1280]"
    def __init__(self): super().__init__(efflite0())

    def forward(self, images):
        images = F.interpolate(images.float(), size=(224, 224), mode="bilinear", antialias=True)
        return super().forward((images - 127) / 128)


class SetDistances:
    """FID (where its weights are), fd_efflite0 and kid_efflite0 of any group of fills.

    The features of each photograph and of each fill are computed once, and kept: 13 KB of a picture."""
    def __init__(self):
        self.fid, self.fd, self.kid = FID(), FDEffLite0(), KIDEffLite0()
        self.photos, self.fills, self.names = {}, [], []

    def update(self, name, filled, image):
        "Add the composite `filled` of the photograph `image` called `name`, both `[1, 3, H, W]`"
        if name not in self.photos: self.photos[name] = self._features(image)
        self.fills.append(self._features(filled))
        self.names.append(name)

    def _features(self, image):
        return {m.name: m.features(image) for m in (self.fid, self.fd) if m.net is not None}

    def values(self, chosen):
        "Distance → dict of its value over the fills with the numbers `chosen`, None where there is none"
        photos = [self.photos[name] for name in dict.fromkeys(self.names[i] for i in chosen)]
        fills, found = [self.fills[i] for i in chosen], {}
        for metric, source in (self.fid, self.fid), (self.fd, self.fd), (self.kid, self.fd):
            value = metric.between(*(_stacked(of, source.name) for of in (photos, fills)))
            found[metric.name] = dict(value=None if np.isnan(value) else float(value))
        return found

    def notes(self):
        "What a reader of the values has to know"
        photos = _stacked(self.photos.values(), self.fd.name)
        count = len(photos)//2
        halves = self.fd.between(photos[:2*count:2], photos[1:2*count:2])
        yield (f"Two halves of the photographs themselves, {count} against {count}, "
               f"have a fd_efflite0 of {halves:.4f}.")
        if len(self.photos) < SMALL:
            yield (f"Below {SMALL} images prefer KID, which does not depend on their number, "
                   "to Fréchet distances.")


def _stacked(features, name):
    "Those by the network `name`, `[n, d]`; of n = 0 where its weights are missing"
    return torch.cat([of[name] for of in features if name in of] or [torch.empty(0, 0)])
