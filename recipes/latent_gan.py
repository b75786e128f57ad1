"The outlook of the thesis (§ 5.2)"
from dataclasses import dataclass
from functools import partial

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.LatentSettings):
    adversarial: float = fi.flag(.3, "Weight of the adversarial loss; feature matching has twice as much")
    detail: int = fi.flag(0, "Train a second set of so many last blocks, and nothing else; 0: all blocks")
    lr_d: float = fi.flag(5e-4, "Learning rate of the discriminator")
    lr: float = fi.flag(1e-3, "Learning rate, the highest of a schedule")
    ema: float = fi.flag(.999, "Decay of the weights' moving average, judged and saved instead; 0: none")


@fi.program
def main(settings: Settings):
    "`delta` with an adversarial loss on latents: texture without decoding"
    s, model = settings, partial(fi.lama, control="mask", delta=True, detail=settings.detail)
    still = dict.fromkeys(["refiner.blocks", "refiner.delta", "conditioner"], (0, 1)) if s.detail else {}
    gan = fi.LatentAdversarial(weight=s.adversarial, feature_matching=2*s.adversarial, lr=s.lr_d)
    cbs = [fi.FreezeSchedule(**still), fi.LatentLoss(known=s.known, distance=s.distance), gan]
    return fi.train_recipe("latent_gan", settings, model, cbs)
