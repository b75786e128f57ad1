"Distances between a set of fills and their photographs, by features of a pretrained network"
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from ..models.pretrained import efflite0, inception_features
from .metrics import NA, NetworkMetric

SMALL = 2048  # images below which a Fréchet distance depends mostly on their number


class FeatureDistance(NetworkMetric):
    "A distance of features of 8-bit composites and photographs: `compute(count)`, of `count` images seen"
    least = 2  # images that it needs for a value
    def reset(self):
        super().reset()
        if net := vars(self).get("net"): net.reset()  # only what is loaded

    def compare(self, filled, image):
        for x, real in (image, True), (filled, False):
            self.net.update((x * 255).round().to(torch.uint8), real=real)
        return 0., len(filled)

    @property
    def value(self) -> float:
        _, count = self._sums()
        return self.compute(int(count)) if count >= self.least else NA


class FrechetDistance(FeatureDistance):
    """Fréchet distance (Heusel et al. 2017) between composites and photographs, in float64.

    It needs more images than features, a network `features()` from uint8 [B,3,H,W] to [B, num_features]."""
    def load(self): return FrechetInceptionDistance(self.features())
    def compute(self, count): return max(0., self.net.compute().item())  # rounding takes equal sets below 0


class FID(FrechetDistance):
    "Fréchet distance on the 2048 pooled features of Inception v3, as in the literature"
    name = "fid"
    def features(self): return inception_features()


class FDEffLite0(FrechetDistance):
    "Fréchet distance on the 1280 pooled features of EfficientNet-Lite0; not comparable with FID"
    name = "fd_efflite0"
    def features(self): return _EffLite0Features()


class KIDEffLite0(FeatureDistance):
    "Kernel distance (Binkowski et al. 2018), mean over 50 random halves; unbiased, it may lie below 0"
    name, least = "kid_efflite0", 4
    def load(self): return KernelInceptionDistance(_EffLite0Features(), subsets=50)

    def compute(self, count):
        self.net.subset_size = count//2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.net.compute()[0].item()


class _EffLite0Features(nn.Sequential):
    "uint8 [B,3,H,W] at 224 x 224, scaled as that network was trained, to features [B,1280]"
    num_features = 1280
    def __init__(self): super().__init__(efflite0())

    def forward(self, images):
        images = F.interpolate(images.float(), size=(224, 224), mode="bilinear", antialias=True)
        return super().forward((images - 127) / 128)


class SetDistances:
    "FID (where its weights are), fd_efflite0 and kid_efflite0 of every mask set"
    def __init__(self): self.sets, self.halves, self.odd = {}, FDEffLite0(), None

    def update(self, name, pred, image, mask):
        "Add one fill `pred` `[1, 3, H, W]` of `image` to the set `name`"
        metrics = self.sets.setdefault(name, (FID(), FDEffLite0(), KIDEffLite0()))
        for metric in metrics: metric.update(pred, image, mask)
        if len(self.sets) > 1: return
        if self.odd is None or self.odd.shape != image.shape: self.odd = image
        else:  # every second photograph against the one before it
            self.halves.update(self.odd, image, torch.ones_like(image[:, :1]))
            self.odd = None

    def values(self):
        "Set → distance → dict of its value, None where there is none"
        def found(value): return dict(value=None if np.isnan(value) else float(value))
        return {name: {m.name: found(m.value) for m in of} for name, of in self.sets.items()}

    def notes(self):
        "What a reader of the values has to know"
        count = int(self.halves.count)
        yield (f"Two halves of the photographs themselves, {count} against {count}, "
               f"have a fd_efflite0 of {self.halves.value:.4f}.")
        if max(fd.count for _, fd, _ in self.sets.values()) < SMALL:
            yield (f"Below {SMALL} images prefer KID, which does not depend on their number, "
                   "to Fréchet distances.")
