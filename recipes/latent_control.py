"Table 5.1 (4), the method of the thesis"
from fastinpaint.all import *


@call_parse
@recipe_flags
def main(**kwargs):
    "Table 5.1 (4): latent L1 and mask control on a frozen autoencoder"
    return train_recipe("latent_control", partial(lama, control="mask"), [FreezeSchedule(), LatentLoss(known=.1)], **kwargs)
