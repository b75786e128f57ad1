"The autoencoder that all other recipes start from and freeze (thesis, § 4.1.2)"
from dataclasses import dataclass

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.Settings):
    augment: bool = fi.flag(False, "Turn, warp and recolour training photographs")
    kind: str = fi.flag("lama", "lama, or of diffusers a small kl or vq, whose file --autoencoder takes")
    stride: int = fi.flag(8, "Of a kl or vq: side of a latent pixel in pixels; at equal numbers in all")
    codes: int = fi.flag(1024, "Of a vq: vectors that a latent pixel may be")


@fi.program
def main(settings: Settings):
    "Pretrain encoder and decoder, without a refiner, on whole photographs, by squared error"
    s = settings
    fi.refuse_foreign(s.autoencoder, "this recipe trains an autoencoder of its own; --init goes on from one")
    def model(width, linear, **_):
        if s.kind != "lama": return fi.new_autoencoder(s.kind, width, s.stride, s.codes)
        return fi.lama(width, blocks=0, control=None, linear=linear, autoencoder=None)
    lama = s.kind == "lama"
    cbs = [fi.Reconstruct(start=lama and not s.init), fi.Centre() if lama else fi.Code()]
    return fi.train_recipe("autoencoder", s, model, cbs, fi.PixelMSE())
