"Table 5.1 (4), the method of the thesis"
from fastinpaint.all import *


@call_parse
@delegates(train_recipe)
def main(**kwargs):
    "Table 5.1 (4): latent L1 and mask control on a frozen autoencoder"
    cbs = [FreezeSchedule(), LatentLoss(known=.1, spread=True)]
    return train_recipe("latent_control", partial(lama, control=True), cbs, **kwargs)
