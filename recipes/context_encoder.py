"The Context Encoder of Pathak et al. (2016), the first of the learned baselines"
from dataclasses import dataclass

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.Settings):
    size: int = fi.setting(128, "Side of the square crops in pixels, the one size of the network")
    prefill: bool = fi.flag(False, "Fill holes smoothly, instead of with the mean colour")
    lr: float = fi.flag(1e-3, "Learning rate, the highest of a schedule; the discriminator's is a tenth")
    clip: float = fi.flag(1., "Largest norm of each network's gradients; 0: any")


@fi.program
def main(settings: Settings):
    """Context Encoder (Pathak et al. 2016): squared error and a little adversarial loss, everything trained.

    The weights are the paper's. Its squared error sees only the hole, here every pixel, its discriminator the
    whole image, here patches. Its network has width 64; `blocks`, `plain`, `autoencoder` mean nothing to it.
    """
    fi.refuse_foreign(settings.autoencoder, "the Context Encoder has no other encoder than its own")
    def model(width, prefill, **_): return fi.context_encoder(width, settings.size, prefill)
    gan = fi.AdversarialTraining(weight=.001, feature_matching=0., r1=0., lr=settings.lr/10,
                                 clip=settings.clip or None)
    return fi.train_recipe("context_encoder", settings, model, [gan], fi.PixelMSE(.999))
