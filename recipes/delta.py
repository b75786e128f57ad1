"Table A.1"
from fastinpaint.all import *


@call_parse
@recipe_flags
def main(**kwargs):
    "Table A.1: as latent_control, with a skip connection around the refiner, which then predicts a difference"
    return train_recipe("delta", partial(lama, control="mask", delta=True), [FreezeSchedule(), LatentLoss(known=.1)], **kwargs)
