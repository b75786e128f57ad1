"Table 5.1 (3)"
from fastinpaint.all import *

FIRST_CONV = "encoder.stages.0.[cl]*"  # the convolution and the linear path beside it, not their BatchNorm


@call_parse
@recipe_flags
def main(**kwargs):
    "Table 5.1 (3): latent L1, the mask as a fourth input channel, of the autoencoder only the first convolution trained"
    return train_recipe("latent", lama, [FreezeSchedule(keep=FIRST_CONV), LatentLoss(known=.1)], **kwargs)
