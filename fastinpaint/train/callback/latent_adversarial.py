"Adversarial training on latents: texture is learnt, and nothing is decoded (outlook of the thesis, § 5.2)"
import torch.nn.functional as F

from ...core.errors import InputError
from ...models.discriminator import LatentDiscriminator
from .adversarial import AdversarialTraining


class LatentAdversarial(AdversarialTraining):
    """`AdversarialTraining` on the latents of a `LatentLoss` in place of images.

    Real is the latent of the image; fake the same, with the refined latent wherever there is hole behind a
    latent pixel. A frozen autoencoder that is nearly lossless has all texture in its latents, and whitened
    ones weigh fine detail as much as colour. Arguments and errors as there; `r1` is of whitened latents."""
    betas = .5, .99

    def __init__(self, discriminator=None, weight=.1, feature_matching=.2, r1=.02, r1_every=4, lr=5e-4,
                 clip=1.):
        super().__init__(discriminator, weight, feature_matching, r1, r1_every, lr, clip)

    def new_discriminator(self, config): return LatentDiscriminator(config["width"]*2**config["depth"])

    def pair(self, step):
        if step.latent is None or step.target is None:
            raise InputError("the discriminator judges latents, and this step has none: add LatentLoss()")
        net, real = self.discriminator, step.target.detach()
        net.measure(real)
        hole = (F.adaptive_max_pool2d(step.latent_mask, real.shape[-2:]) > 0).to(real)
        real = net.whiten(real)
        return real, real + hole*(net.whiten(step.latent) - real), hole
