"Table 5.2 (2)"
from dataclasses import dataclass
from functools import partial

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.AdversarialSettings):
    latent_weight: float = fi.flag(1e-4, "Weight of the latent L1: the thesis' code has 1e-4, its text 1e-3")


@fi.program
def main(settings: Settings):
    "Table 5.2 (2): all of LaMa's losses and the latent L1, mask control on a frozen autoencoder"
    loss, chosen = fi.full_loss(settings.perceptual)
    latent = fi.LatentLoss(settings.latent_weight, pixel=True)
    cbs = [fi.FreezeSchedule(), latent, *fi.adversarial_callbacks(settings)]
    model = partial(fi.lama, control="mask")
    return fi.train_recipe("latent_control_gan", settings, model, cbs, loss, chosen)
