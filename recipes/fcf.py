"FcF (Jain et al. 2022): structure and texture by a generator that has a choice"
from dataclasses import dataclass

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.AdversarialSettings):
    depth: int = fi.flag(4, "Halvings of the size")
    ema: float = fi.flag(.999, "Decay of the weights' moving average, judged and saved instead; 0: none")


@fi.program
def main(settings: Settings):
    """Co-modulated generation with FFC blocks on the skips, and LaMa's losses: as many fills as seeds.

    `blocks`, `refiner`, `plain` and `autoencoder` mean nothing to it."""
    fi.refuse_foreign(settings.autoencoder, "fcf has no other encoder than its own")
    def model(width, prefill, **_): return fi.fcf(width, settings.depth, prefill)
    loss, chosen = fi.full_loss(settings.perceptual)
    cbs = [fi.StyleNoise(settings.seed), *fi.adversarial_callbacks(settings)]
    return fi.train_recipe("fcf", settings, model, cbs, loss, chosen)
