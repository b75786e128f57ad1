"Table 5.1 (4), the method of the thesis"
from functools import partial

import fastinpaint as fi


@fi.program
def main(settings: fi.LatentSettings):
    "Table 5.1 (4): latent L1 and mask control on a frozen autoencoder"
    model = partial(fi.lama, control="mask")
    cbs = [fi.FreezeSchedule(), fi.LatentLoss(known=settings.known, distance=settings.distance)]
    return fi.train_recipe("latent_control", settings, model, cbs)
