"Table A.1"
from dataclasses import dataclass
from functools import partial

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.LatentSettings):
    thesis: bool = fi.thesis_setting(known=1., distance="l1", plain_sum=True)
    plain_sum: bool = fi.flag(False, "Add the blocks' output as it is, without a 1×1 convolution from zero")


@fi.program
def main(settings: Settings):
    "Table A.1: latent_control with a skip around the refiner, which then predicts a difference"
    model = partial(fi.lama, control="mask", delta="sum" if settings.plain_sum else True)
    cbs = [fi.FreezeSchedule(), fi.LatentLoss(known=settings.known, distance=settings.distance)]
    return fi.train_recipe("delta", settings, model, cbs)
