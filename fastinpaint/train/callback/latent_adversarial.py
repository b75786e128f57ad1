"Adversarial training on latents: texture is learnt, and nothing is decoded (outlook of the thesis, § 5.2)"
import torch.nn.functional as F

from ...core.errors import InputError
from ...core.together import batch_mean
from ...models.discriminator import LatentDiscriminator
from ..losses import Adversarial, Term
from .adversarial import AdversarialTraining


class LatentAdversarial(AdversarialTraining):
    """`AdversarialTraining` on the latents of a `LatentLoss` in place of images.

    Real is the latent of the image; fake the same, with the refined latent wherever there is hole behind a
    latent pixel, and only there does its logit count, in both losses. A frozen autoencoder that is nearly
    lossless has all texture in its latents, and whitened ones weigh fine detail as much as colour. Arguments
    and errors as there; `r1` is of whitened latents, and of each logit, whatever their number."""
    betas = .5, .99
    clipped = "generator",  # the penalty holds the discriminator back by gradients that are rare and large

    def __init__(self, discriminator=None, weight=.3, feature_matching=.6, r1=1.5, r1_every=4, lr=5e-4,
                 clip=1.):
        super().__init__(discriminator, weight, feature_matching, r1, r1_every, lr, clip)

    def new_discriminator(self, config): return LatentDiscriminator(self.model.encoder.channels[-1])
    def new_terms(self, weight, matching): return [InHole(weight), FeatureL1(matching)]

    def losses(self, real, fake, hole):
        return {"real": F.softplus(-real).mean(), "fake": mean_in(hole, F.softplus(fake))}

    def _r1_penalty(self, logits): return super()._r1_penalty(logits)/logits[0].numel()

    def pair(self, step):
        if step.latent is None or step.target is None:
            raise InputError("the discriminator judges latents, and this step has none: add LatentLoss()")
        net, real, hole = self.discriminator, step.target.detach(), latent_hole(step)
        net.measure(real)
        real = net.whiten(real)
        return real, real + hole*(net.whiten(step.latent) - real), hole


class InHole(Adversarial):
    "`Adversarial` on the logits of latent pixels with a hole behind them"
    def forward(self, step): return mean_in(step.fake_hole, F.softplus(-step.fake_logits))


class FeatureL1(Term):
    "Mean over the discriminator's layers of the absolute distance of prediction and image"
    name = "feature_matching"
    def forward(self, step):
        pairs = zip(step.fake_features, step.real_features, strict=True)
        return sum(F.l1_loss(fake, real.detach()) for fake, real in pairs)/len(step.fake_features)


def latent_hole(step):
    "`[B, 1, h, w]`: 1 for latent pixels with any hole behind them"
    return (F.adaptive_max_pool2d(step.latent_mask, step.target.shape[-2:]) > 0).to(step.target)


def mean_in(hole, values):
    "Mean of `values` where there is `hole`; its mean over processes is that over their holes as one"
    return (hole*values).mean()/batch_mean(hole.mean()).clamp_min(1e-12)
