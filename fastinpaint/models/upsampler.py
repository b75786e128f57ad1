"The second of GLIDE's two models: from a fill at a quarter of the size to the whole (Nichol et al. 2022)"
import torch
import torch.nn.functional as F

from ..core.errors import InputError
from .denoiser import Denoiser
from .latent_diffusion import LatentDiffusion, Pixels, check_unet, latent_diffusion
from .net import composite
from .sampling import Sampling

MODEL, SMALLER = "upsampler", 4  # times the base's side


class Upsampler(LatentDiffusion):
    """A `LatentDiffusion` of pixels that finds the hole filled by `base`, one for images a quarter as large.

    It denoises the difference from that, enlarged; known pixels are imposed after every step of sampling."""
    def __init__(self, base, denoiser, config):
        super().__init__(Pixels(), denoiser, Pixels(), False, config | dict(delta=True))
        self.base, self.config = base, config
        self.stride = max(self.stride, SMALLER)
        self.sampling = Sampling(config["sampler"], config["steps"], repaint=1)

    def condition(self, masked, mask, seed=None):
        "As of `LatentDiffusion`, where the base fills the hole by `seed`"
        small, hole = smaller(self.pad(masked), self.pad(mask))
        return self._given(masked, mask, composite(self.base(small, hole, seed=seed), small, hole))

    def condition_of(self, image, masked, mask):
        "In training the hole is filled by what a perfect base would find"
        return self._given(masked, mask, F.avg_pool2d(self.pad(image), SMALLER))

    def _given(self, masked, mask, small):
        masked, mask = self.pad(masked), self.pad(mask)
        larger = F.interpolate(small, masked.shape[-2:], mode="bilinear")
        return torch.cat([self.whiten(torch.where(mask > .5, larger, masked)), mask.to(larger)], dim=1)

    def forward(self, masked, mask, noisy=None, timesteps=None, condition=None, seed=None):
        if condition is None: condition = self.condition(masked, mask, seed)
        return super().forward(masked, mask, noisy, timesteps, condition, seed)


def smaller(masked, mask):
    "`masked` and its hole at a quarter of the size: means of known pixels, hole where most are missing"
    known = F.avg_pool2d(1 - mask, SMALLER)
    hole = (known < .5).to(masked)
    return F.avg_pool2d(masked, SMALLER)/known.clamp_min(1e-3)*(1 - hole), hole


def upsampler(base=None, channels=(16, 24, 32, 40), layers=1, prediction="v", sampler="dpm++", steps=20):
    """An `Upsampler` of the fills of `base`, a `LatentDiffusion` in pixels, or the config of one.

    It keeps the base, so that one file fills. The others are those of `latent_diffusion`, and of its own
    U-Net. Raises as that does, and InputError for another base."""
    if isinstance(base, dict): base = latent_diffusion(**{k: v for k, v in base.items() if k != "model"})
    if not isinstance(base, LatentDiffusion) or not base.config.get("pixels"):
        kind = getattr(base, "config", {}).get("model", type(base).__name__)
        raise InputError(f"the base of an upsampler is a model of pixel_diffusion, not {kind}")
    channels = check_unet(channels, layers, prediction)
    config = dict(model=MODEL, base=base.config, channels=channels, layers=layers, prediction=prediction,
                  sampler=sampler, steps=steps)
    return Upsampler(base, Denoiser(3, channels, layers, "concat"), config).train()
