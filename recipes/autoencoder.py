"The autoencoder that all other recipes start from and freeze (thesis, § 4.1.2)"
from fastinpaint.all import *


@call_parse
@recipe_flags
def main(augment: store_true = False, **kwargs):
    "Pretrain encoder and decoder to reproduce whole photographs, with a squared error and no refiner between them"
    def model(width, linear, **_): return lama(width, blocks=0, control=None, linear=linear, autoencoder=None)
    return train_recipe("autoencoder", model, [Reconstruct()], PixelMSE(), augment=augment, **kwargs)
