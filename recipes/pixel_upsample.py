"The second of GLIDE's models (Nichol et al. 2022): fills of 256 pixels from those of 64"
from dataclasses import dataclass

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.DiffusionSettings):
    base: str = fi.flag("runs/pixel_diffusion/model.safetensors", "A model of pixel_diffusion, to upsample")
    size: int = fi.flag(256, "Side of the square crops in pixels, four times that of the base's")
    bs: int = fi.flag(4, "Batch size of each process")
    width_u: int = fi.flag(16, "Channels of the U-Net's first stage; each further one has half as many more")


@fi.program
def main(settings: Settings):
    """Masked denoising of pixels given a fill at a quarter of the size: `base` and this in one file.

    `control` and `delta`, `width`, `plain`, `prefill` and `autoencoder` mean nothing to it."""
    return fi.train_recipe("pixel_upsample", settings, *fi.denoising_parts(settings, 4, base=settings.base))
