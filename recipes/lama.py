"Table 5.2 (1)"
from dataclasses import dataclass
from functools import partial

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.AdversarialSettings):
    thesis: bool = fi.thesis_setting(perceptual="ade20k", width_d=64, first="anew")
    first: str = fi.flag("kept", "First convolution: the autoencoder's and zeros for the mask, kept, or anew")


@fi.program
def main(settings: Settings):
    "Table 5.2 (1): LaMa with its losses: known-pixel L1, perceptual, adversarial, features"
    loss, chosen = fi.full_loss(settings.perceptual)
    model, cbs = partial(fi.lama, first=settings.first), fi.adversarial_callbacks(settings)
    return fi.train_recipe("lama", settings, model, cbs, loss, chosen)
