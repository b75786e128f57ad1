"Table A.1"
from functools import partial

import fastinpaint as fi


@fi.program
def main(settings: fi.Settings):
    "Table A.1: latent_control with a skip around the refiner, which then predicts a difference"
    model = partial(fi.lama, control="mask", delta=True)
    cbs = [fi.FreezeSchedule(), fi.LatentLoss(known=.1)]
    return fi.train_recipe("delta", settings, model, cbs)
