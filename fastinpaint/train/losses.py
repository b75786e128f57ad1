"Loss terms: small modules with a name and a weight, which read a `Step`; `InpaintLoss` sums them"
import torch
import torch.nn.functional as F
from torch import nn

from ..core.errors import InputError
from ..judge.plain import arguments
from ..kernels import masked_l1
from ..models.perceptual import perceptual_network


class Term(nn.Module):
    "A named term: `forward(step)` gives its unweighted scalar, `weight` its share in the sum"
    name = "term"
    def __init__(self, weight=1.):
        super().__init__()
        if weight < 0: raise InputError(f"the weight of {self.name} is {weight}; it cannot be negative")
        self.weight = weight


class MaskedL1(Term):
    "L1 with its own weights for `known` and `missing` pixels"
    def __init__(self, weight=1., known=1., missing=1.):
        super().__init__(weight)
        if min(known, missing) < 0: raise InputError(f"{self.name}: negative {known=} or {missing=}")
        self.known, self.missing = known, missing

    def l1(self, a, b, mask): return masked_l1(a, b, mask, self.known, self.missing)


class PixelL1(MaskedL1):
    "L1 between the raw prediction and the image, before compositing"
    name = "pixel_l1"
    def forward(self, step): return self.l1(step.prediction, step.image, step.mask)


class PixelMSE(Term):
    "Mean squared error between prediction and image, as for autoencoders (thesis, § 4.1.2)"
    name = "pixel_mse"
    def forward(self, step): return F.mse_loss(step.prediction, step.image)


class Denoise(Term):
    "Squared error of what a denoiser finds in noisy latents; weights are the step's"
    name = "denoising"
    def forward(self, step): return (step.latent_weight*(step.latent - step.target).square()).mean()


class Adversarial(Term):
    "Non-saturating generator loss (Goodfellow et al. 2014) on the discriminator's logits"
    name = "adversarial"
    def forward(self, step): return F.softplus(-step.fake_logits).mean()


class FeatureMatching(Term):
    "Mean over the discriminator's layers of the squared distance of prediction and image"
    name = "feature_matching"
    def forward(self, step):
        return feature_distance(step.fake_features, step.real_features)/len(step.fake_features)


class Perceptual(Term):
    "Squared distance summed over the list of features of `network`, given images in [0, 1] (LaMa, § 3.2)"
    name = "perceptual"
    def __init__(self, network, weight=30.):
        super().__init__(weight)
        self.network = network

    def forward(self, step):
        self.network.to(step.image.device)
        return feature_distance(self.network(step.prediction), self.network(step.image))


def feature_distance(features, targets):
    "Sum over layers of the mean squared distance; no gradients for `targets`"
    return sum(F.mse_loss(a, b.detach()) for a, b in zip(features, targets, strict=True))


class GivenLoss(Term):
    "A `function` of the raw prediction and the image `[B, 3, H, W]`, or of these and the mask `[B, 1, H, W]`"
    def __init__(self, function):
        super().__init__()
        self.function, self.count = function, arguments(function, "loss")
        name = getattr(function, "__name__", type(function).__name__)
        self.name = name if name.isidentifier() else "loss"

    def forward(self, step): return self.function(*(step.prediction, step.image, step.mask)[:self.count])


class InpaintLoss(nn.Module):
    """The weighted sum of `terms` of a `Step`; `values` holds the unweighted terms of the last one.

    With `reduction` "none" that of each photograph `[B]`, as fastai asks for losses of single items."""
    reduction = "mean"
    def __init__(self, *terms):
        super().__init__()
        wrong = [t for t in terms if not isinstance(t, Term)]
        if wrong: raise InputError(f"a loss is made of terms such as PixelL1(), not of {wrong[0]!r}")
        self.terms, self.values = list(terms), {}

    def forward(self, step):
        if self.reduction == "none": return torch.stack([self._sum(o) for o in step.photographs()])
        return self._sum(step)

    def _sum(self, step):
        self.values = {term.name: term(step) for term in self.terms}
        return sum(term.weight*self.values[term.name] for term in self.terms)

    def extra_repr(self): return " + ".join(f"{term.weight:g}·{term.name}" for term in self.terms)


def inpaint_loss(loss):
    """The `InpaintLoss` of a term, or of a function of prediction and target (`GivenLoss`), as fast.ai has.

    Raises InputError for anything else."""
    if isinstance(loss, InpaintLoss): return loss
    return InpaintLoss(loss if isinstance(loss, Term) else GivenLoss(loss))


def full_loss(perceptual):
    """L1 on known pixels and the perceptual term, with the weights of LaMa's paper.

    `perceptual` and errors as of `perceptual_network`. Returns the loss, and for settings.json a network."""
    network, name = perceptual_network(perceptual)
    print(f"perceptual term: {name}")
    terms = [PixelL1(10., known=1., missing=0.), *([Perceptual(network)] if network else [])]
    return InpaintLoss(*terms), {"perceptual_network": name}
