"Table 5.1 (1), the baseline"
from dataclasses import dataclass
from functools import partial

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.Settings):
    thesis: bool = fi.thesis_setting(first="anew")
    first: str = fi.flag("kept", "First convolution: the autoencoder's and zeros for the mask, kept, or anew")


@fi.program
def main(settings: Settings):
    "Table 5.1 (1): L1 in pixels, everything trained, the mask as a fourth input channel"
    return fi.train_recipe("lama_l1", settings, partial(fi.lama, first=settings.first))
