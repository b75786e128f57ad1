"Table 5.1 (2)"
from functools import partial

import fastinpaint as fi


@fi.program
def main(settings: fi.Settings):
    "Table 5.1 (2): L1 in pixels through a frozen decoder, mask control on a frozen encoder"
    model = partial(fi.lama, control="mask")
    return fi.train_recipe("mask_control", settings, model, [fi.FreezeSchedule()])
