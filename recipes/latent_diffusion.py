"Latent diffusion for inpainting, the way of Stable Diffusion (Rombach et al. 2022)"
from dataclasses import dataclass

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.Settings):
    control: str = fi.flag("concat", "How the U-Net is told of the hole: concat, controlnet, mask, none")
    width_u: int = fi.flag(64, "Channels of the U-Net's first stage; the second has half as many more")
    layers: int = fi.flag(1, "Residual blocks in each stage")
    prediction: str = fi.flag("v", "What the U-Net predicts: v (velocity), or epsilon (noise)")
    min_snr: float = fi.flag(5., "Largest signal-to-noise ratio that weighs a timestep; 0: all alike")
    known: float = fi.flag(.1, "Weight of latent pixels without a hole; those with one have 1")
    sampler: str = fi.flag("dpm++", "How holes are filled: ddim, ddpm, dpm++, lcm")
    sampling: int = fi.flag(20, "Steps of sampling")
    lr: float = fi.flag(1e-3, "Learning rate, the highest of a schedule")
    clip: float = fi.flag(1., "Largest norm of the gradients; 0: any")
    ema: float = fi.flag(.999, "Decay of the weights' moving average, judged and saved instead; 0: none")


@fi.program
def main(settings: Settings):
    """Latent diffusion on a frozen autoencoder: as many fills as seeds, each drawn from noise.

    Where `init` is a model of `control` none, controlnet and mask leave its U-Net as it is. `blocks` and
    `refiner` mean nothing to it."""
    s = settings
    def model(width, linear, prefill, autoencoder, **_):
        control = None if s.control == "none" else s.control
        channels = s.width_u, 3*s.width_u//2
        return fi.latent_diffusion(width, 3, linear, prefill, autoencoder, channels, s.layers, control,
                                   s.prediction, s.sampler, s.sampling)
    frozen = dict(refiner__unet=(0, 1)) if s.init and s.control in ("controlnet", "mask") else {}
    cbs = [fi.FreezeSchedule(**frozen), fi.Denoising(known=s.known, min_snr=s.min_snr, seed=s.seed)]
    return fi.train_recipe("latent_diffusion", s, model, cbs)
