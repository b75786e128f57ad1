"A U-Net of diffusers that takes noise off latents, and the ways in which hole and known latents reach it"
from importlib import import_module
from math import gcd

import torch
from torch import nn

from ..core.errors import InputError, MissingPackage
from .folded import copied

GROUPS, HEAD = 32, 32  # of GroupNorm, at most; channels of a head of attention


def of_diffusers(name):
    "diffusers' class called `name`. Raises MissingPackage without diffusers, which takes seconds to import"
    try: return getattr(import_module("diffusers"), name)
    except ImportError as e:
        raise MissingPackage(f'{name} needs {e.name}: pip install "fastinpaint[diffusers]"') from e


class Denoiser(nn.Module):
    """The noise, or velocity, of noisy latents `[B, C, h, w]` at timesteps `[B]`, of the same shape.

    `unet`, diffusers' `UNet2DConditionModel` without text, has `channels` in its stages, each half the size
    of the one before, with attention in the last. `condition` `[B, C+1, h, w]`, known latents and the share
    of hole behind each latent pixel, reaches it by `control`: "concat", as more input channels (Rombach et
    al. 2022); "controlnet", diffusers' `ControlNetModel` (Zhang et al. 2023), or "mask", a `LatentControl`,
    neither of which changes a bit of its output at first; None, not at all."""
    def __init__(self, latent_channels, channels, layers, control):
        super().__init__()
        self.kind, halvings = control, len(channels) - 1
        n_condition = latent_channels + 1
        self.unet = of_diffusers("UNet2DConditionModel")(
            in_channels=latent_channels + n_condition*(control == "concat"), out_channels=latent_channels,
            block_out_channels=channels, layers_per_block=layers, mid_block_type="UNetMidBlock2D",
            down_block_types=["DownBlock2D"]*halvings + ["AttnDownBlock2D"],
            up_block_types=["AttnUpBlock2D"] + ["UpBlock2D"]*halvings,
            norm_num_groups=gcd(GROUPS, *channels), attention_head_dim=gcd(HEAD, channels[-1]))
        self.control = CONTROLS[control](self.unet, n_condition)

    def forward(self, noisy, timesteps, condition):
        if self.kind == "concat": noisy = torch.cat([noisy, condition], dim=1)
        more = {}
        if self.kind == "controlnet":
            down, mid = self.control(noisy, timesteps, None, condition, return_dict=False)
            more = dict(down_block_additional_residuals=down, mid_block_additional_residual=mid)
        elif self.kind == "mask": more = dict(down_intrablock_additional_residuals=self.control(condition))
        return self.unet(noisy, timesteps, None, return_dict=False, **more)[0]

    def folded(self, winograd=False): return copied(self)


class LatentControl(nn.Module):
    """Mask control (thesis, § 4.1.1) beside the encoder of a diffusion U-Net, as Motion-I2V takes it over.

    An encoder of `condition` `[B, n_in, h, w]` with a stage for each of the U-Net's; what zero-initialised
    1×1 convolutions make of their outputs is added to those of the U-Net's blocks."""
    def __init__(self, n_in, channels):
        super().__init__()
        self.stages, self.zero_convs = nn.ModuleList(), nn.ModuleList()
        for n in channels:
            last = len(self.stages) == len(channels) - 1  # in the U-Net as well, it does not halve the size
            conv = nn.Conv2d(n_in, n, 3, stride=1 if last else 2, padding=1)
            self.stages.append(nn.Sequential(conv, nn.SiLU()))
            self.zero_convs.append(nn.Conv2d(n, n, 1, bias=False))
            nn.init.zeros_(self.zero_convs[-1].weight)
            n_in = n

    def forward(self, condition):
        added = []
        for stage, zero_conv in zip(self.stages, self.zero_convs, strict=True):
            condition = stage(condition)
            added.append(zero_conv(condition))
        return added


def controlnet(unet, n_condition):
    "A copy of the encoder of `unet` that sees the condition at latent size"
    first = unet.config.block_out_channels[0]
    return of_diffusers("ControlNetModel").from_unet(
        unet, conditioning_channels=n_condition, conditioning_embedding_out_channels=(first,))


def latent_control(unet, n_condition): return LatentControl(n_condition, unet.config.block_out_channels)
def nothing(unet, n_condition): return None


CONTROLS = {"concat": nothing, "controlnet": controlnet, "mask": latent_control, None: nothing}


def with_control(denoiser, new):
    """Give `new`, a controlled `Denoiser`, the U-Net of `denoiser`, which has no control: equal to the bit.

    Raises InputError where `denoiser` is controlled."""
    if denoiser.kind is not None:
        raise InputError(f'control={new.kind!r} is added to a U-Net with control=None, and this has '
                         f'control={denoiser.kind!r}')
    state = denoiser.unet.state_dict()
    new.unet.load_state_dict(state)
    if new.kind == "controlnet":  # at first a copy of the encoder
        encoder = {k: v for k, v in state.items() if k in new.control.state_dict()}
        new.control.load_state_dict(encoder, strict=False)
    return new
