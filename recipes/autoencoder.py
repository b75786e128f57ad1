"The autoencoder that all other recipes start from and freeze (thesis, § 4.1.2)"
from dataclasses import dataclass

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.Settings):
    augment: bool = fi.flag(False, "Turn, warp and recolour training photographs")


@fi.program
def main(settings: Settings):
    "Pretrain encoder and decoder, without a refiner, on whole photographs, by squared error"
    def model(width, linear, **_):
        return fi.lama(width, blocks=0, control=None, linear=linear, autoencoder=None)
    cbs = [fi.Reconstruct(start=not settings.init), fi.Centre()]
    return fi.train_recipe("autoencoder", settings, model, cbs, fi.PixelMSE())
