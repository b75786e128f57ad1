"Diffusion in pixels, the way of GLIDE's inpainting (Nichol et al. 2022)"
from dataclasses import dataclass

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.DiffusionSettings):
    size: int = fi.setting(64, "Side of the square crops in pixels")
    width_u: int = fi.flag(32, "Channels of the U-Net's first stage; each further one has half as many more")


@fi.program
def main(settings: Settings):
    """Masked denoising of pixels at the size of GLIDE's first model, without an autoencoder.

    `width`, `plain` and `autoencoder` mean nothing to it."""
    return fi.train_recipe("pixel_diffusion", settings, *fi.denoising_parts(settings, stages=4, pixels=True))
