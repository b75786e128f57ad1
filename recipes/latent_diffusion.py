"Latent diffusion for inpainting, the way of Stable Diffusion (Rombach et al. 2022)"
import fastinpaint as fi


@fi.program
def main(settings: fi.DiffusionSettings):
    """Latent diffusion on a frozen autoencoder: as many fills as seeds, each drawn from noise.

    Where `init` is a model of `control` none, controlnet and mask leave its U-Net as it is."""
    return fi.train_recipe("latent_diffusion", settings, *fi.denoising_parts(settings, stages=2))
