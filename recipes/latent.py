"Table 5.1 (3)"
from fastinpaint.all import *


@call_parse
@delegates(train_recipe)
def main(**kwargs):
    "Table 5.1 (3): latent L1, the mask as a fourth input channel, of the autoencoder only the first convolution trained"
    train_recipe("latent", lama, [FreezeSchedule(keep="encoder.stages.0.conv"), LatentLoss()], **kwargs)
