"Loss terms: each a small module with a name and a weight, summed and remembered by `InpaintLoss`"
import torch.nn.functional as F
from torch import nn

from ..kernels import masked_l1


class Term(nn.Module):
    "A loss term: `forward(pred, image, mask)` gives its unweighted scalar, `weight` its share in the sum, `name` its log entry"
    name = "term"

    def __init__(self, weight=1.):
        super().__init__()
        if weight < 0: raise ValueError(f"the weight of {self.name} is {weight}; it cannot be negative")
        self.weight = weight


class MaskedL1(Term):
    "L1 with its own weights for `known` and `missing` pixels"
    def __init__(self, weight=1., known=1., missing=1.):
        super().__init__(weight)
        if min(known, missing) < 0: raise ValueError(f"{self.name}: {known=} and {missing=} cannot be negative")
        self.known, self.missing = known, missing


class PixelL1(MaskedL1):
    """L1 between the raw prediction and the image, both `[B, 3, H, W]`, before compositing.

    LaMa's full training weighs known pixels 10 and the hole 0, leaving the hole to its other terms.
    """
    name = "pixel_l1"

    def forward(self, pred, image, mask): return masked_l1(pred, image, mask, self.known, self.missing)


class PixelMSE(Term):
    "Mean squared error between prediction and image `[B, 3, H, W]`: what autoencoders are trained with (thesis, § 4.1.2)"
    name = "pixel_mse"

    def forward(self, pred, image, mask): return nn.functional.mse_loss(pred, image)


class Adversarial(Term):
    "Non-saturating loss of the generator: how unreal its patches look to the discriminator"
    name = "adversarial"

    def __init__(self, weight=10.):
        super().__init__(weight)
        self.logits = None  # of the prediction; `AdversarialTraining` puts them here for each batch

    def forward(self, pred, image, mask): return F.softplus(-self.logits).mean()


class FeatureMatching(Term):
    "Mean over the discriminator's layers of the squared distance between features of prediction and image"
    name = "feature_matching"

    def __init__(self, weight=100.):
        super().__init__(weight)
        self.fake = self.real = None  # lists of features, as above

    def forward(self, pred, image, mask):
        return sum(F.mse_loss(a, b.detach()) for a, b in zip(self.fake, self.real, strict=True))/len(self.fake)


class Perceptual(Term):
    """Sum over the feature maps of `network` of the squared distance between prediction and image (LaMa, § 3.2).

    `network(image)` takes RGB `[B, 3, H, W]` in [0, 1] and gives a list of features; see `perceptual.perceptual_network`.
    """
    name = "perceptual"

    def __init__(self, network, weight=30.):
        super().__init__(weight)
        self.network = network

    def forward(self, pred, image, mask):
        self.network.to(pred.device)
        return sum(F.mse_loss(a, b.detach()) for a, b in zip(self.network(pred), self.network(image), strict=True))


class InpaintLoss(nn.Module):
    """The sum of named, weighted terms, as fastai's `loss_func(pred, image, mask)`.

    `values` holds the unweighted terms of the last batch by name. Callbacks add terms of their own to `terms`.
    """
    def __init__(self, *terms):
        super().__init__()
        wrong = [t for t in terms if not isinstance(t, Term)]
        if wrong: raise ValueError(f"a loss is made of terms such as PixelL1() or Perceptual(…), not of {wrong[0]!r}")
        self.terms, self.values = list(terms), {}

    def forward(self, pred, image, mask):
        self.values = {term.name: term(pred, image, mask) for term in self.terms}
        return sum(term.weight*self.values[term.name] for term in self.terms)
