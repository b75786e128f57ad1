"Table 5.1 (3)"
from dataclasses import dataclass
from functools import partial

import fastinpaint as fi

# the convolution and the linear path beside it, not their BatchNorm
FIRST_CONV = "encoder.stages.0.[cl]*"


@dataclass(kw_only=True)
class Settings(fi.LatentSettings):
    thesis: bool = fi.thesis_setting(known=1., distance="l1", first="bare")
    first: str = fi.flag("kept", "First convolution: kept, anew, or bare (a convolution for the block)")


@fi.program
def main(settings: Settings):
    "Table 5.1 (3): latent L1, the mask as a fourth channel; the first convolution trains, too"
    # a bare one is no part of the encoder, and trains as it is
    keep = () if settings.first == "bare" else FIRST_CONV
    cbs = [fi.FreezeSchedule(keep=keep), fi.LatentLoss(known=settings.known, distance=settings.distance)]
    return fi.train_recipe("latent", settings, partial(fi.lama, first=settings.first), cbs)
