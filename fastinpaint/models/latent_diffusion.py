"Latent diffusion (Rombach et al. 2022) for inpainting: a hole is filled in as many ways as there are seeds"
import torch
import torch.nn.functional as F
from torch import nn

from ..core.errors import InputError
from ..core.together import batch_mean, channel_statistics
from ..kernels.prefill import smooth_fill
from .denoiser import CONTROLS, Denoiser, with_control
from .lama import lama
from .net import InpaintNet
from .sampling import PREDICTIONS, Sampling, sampled

MODEL = "latent_diffusion"
PROBE = 64        # pixels: side of the image of which the autoencoder's latent is looked at
SMALLEST = .05    # scale of a difference, of the standard deviation of latents
MOST = 4096, 8    # channels of a stage; stages, and layers of each


class Pixels(nn.Module):
    "Encoder or decoder of an autoencoder for which the image is the latent: diffusion in pixels"
    channels, strides, stride = [3], [1], 1
    def __init__(self):
        super().__init__()
        self.stages = nn.Sequential(nn.Identity())

    def forward(self, image): return image


class LatentDiffusion(InpaintNet):
    """An `InpaintNet` that fills by sampling: a `Denoiser` of whitened latents between encoder and decoder.

    What becomes of an image and its hole depends on the seed alone. `sampling`, a `Sampling`, may be replaced
    at any time. By what `measure` found, every channel of a latent has mean 0 and standard deviation 1, and
    with `delta` every channel of the differences in holes has the mean square 1."""
    generates = True
    def __init__(self, encoder, denoiser, decoder, prefill, config):
        super().__init__(encoder, denoiser, decoder, None, prefill, config)
        self.sampling, self.prediction = Sampling(config["sampler"], config["steps"]), config["prediction"]
        self.delta = config["delta"]
        channels = denoiser.unet.config.out_channels
        self.stride *= 2**(len(config["channels"]) - 1)  # the U-Net halves latents without a remainder
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        self.register_buffer("scale", torch.ones(1, channels, 1, 1))
        self.register_buffer("measured", torch.tensor(0))

    def measure(self, latents, given, hole):
        """Take the statistics of all processes' `latents` `[B, C, h, w]`; weak channels count less.

        `given` are those of the masked images, `hole` `[B, 1, h, w]` its share behind each latent pixel."""
        mean, std = channel_statistics(latents)
        square = hole*((latents - given)/std).square()
        square = batch_mean(square.mean((0, 2, 3), keepdim=True))/batch_mean(hole.mean()).clamp_min(1e-6)
        self.mean.copy_(mean)
        self.std.copy_(std)
        if self.delta and square.all(): self.scale.copy_(square.sqrt().clamp_min(SMALLEST))
        self.measured.fill_(1)

    def whiten(self, latent): return (latent - self.mean)/self.std

    def condition(self, masked, mask):
        "`[B, C+1, h, w]`: the whitened latent of `masked`, and the share of hole behind each latent pixel"
        masked, mask = self.pad(masked), self.pad(mask)
        if self.prefill: masked = smooth_fill(masked, mask)
        latent = self.whiten(self.encoder(masked))
        return torch.cat([latent, F.adaptive_avg_pool2d(mask.to(latent), latent.shape[-2:])], dim=1)

    def condition_of(self, image, masked, mask): return self.condition(masked, mask)  # in training

    def clean(self, image, condition):
        "The whitened latent of `image`, or its difference from that of the condition: what noise is added to"
        latent = self.whiten(self.encoder(self.pad(image)))
        return (latent - condition[:, :-1])/self.scale if self.delta else latent

    def refine(self, latent):
        raise InputError("a diffusion model refines no latent: it fills by sampling, as model(masked, mask)")

    def forward(self, masked, mask, noisy=None, timesteps=None, condition=None, seed=None):
        """Prediction `[B, 3, H, W]`, not composited, of `masked` `[B, 3, H, W]`, 0 in the hole, and `mask`.

        With `noisy` latents `[B, C, h, w]` at `timesteps` `[B]`, what the denoiser finds in them instead.
        `condition` spares what finds it."""
        if condition is None: condition = self.condition(masked, mask)
        if noisy is not None: return self.refiner(noisy, timesteps, condition)
        def denoise(x, t): return self.refiner(x, t, condition)
        given, hole = condition[:, :-1].float(), condition[:, -1:]
        start = torch.zeros_like(given) if self.delta else given
        with torch.no_grad():
            latent = sampled(denoise, start, hole == 0, self.sampling, self.prediction, seed)
        if self.delta: latent = latent*self.scale + given
        return self.decode(latent*self.std + self.mean)[..., :masked.shape[-2], :masked.shape[-1]]


def latent_diffusion(width=8, depth=3, linear=True, prefill=True, autoencoder="sample", channels=(64, 96),
                     layers=1, control="concat", prediction="v", sampler="dpm++", steps=20, delta=True,
                     pixels=False):
    """A `LatentDiffusion` around the encoder and decoder that `lama` of the same first arguments has.

    With `pixels` around none, so that it denoises images (GLIDE, Nichol et al. 2022). `channels`, `layers` in
    each stage, and `control` are those of its `Denoiser`, which predicts the noise, "epsilon", or the
    velocity, "v" (Salimans and Ho 2022). With `prefill` the encoder sees a smooth fill in the hole, else
    black. With `delta` noise is added to the difference from the latent of that, which spares a small network
    to learn to copy; Stable Diffusion adds it to the latent. `sampler` and `steps` are the first of its
    `Sampling`. Raises MissingPackage without diffusers, InputError for other arguments."""
    channels = check_unet(channels, layers, prediction)
    if control not in CONTROLS:
        raise InputError(f"no diffusion of {control=}: expected {', '.join(map(repr, CONTROLS))}")
    if delta and control is None:
        raise InputError("no diffusion of delta=True with control=None: who knows a difference alone, sees "
                         "nothing of the image; expected delta=False")
    Sampling(sampler, steps)
    base = InpaintNet(Pixels(), None, Pixels()) if pixels else lama(
        width, 0, depth, None, linear=linear, prefill=prefill, autoencoder=autoencoder)
    config = dict(model=MODEL, width=width, depth=depth, linear=linear, prefill=prefill, channels=channels,
                  layers=layers, control=control, prediction=prediction, sampler=sampler, steps=steps,
                  delta=delta, pixels=pixels)
    if "autoencoder" in base.config: config["autoencoder"] = base.config["autoencoder"]
    with torch.no_grad(): latent = base.eval().encode(torch.zeros(1, 3, PROBE, PROBE))
    denoiser = Denoiser(latent.shape[1], channels, layers, control)
    return LatentDiffusion(base.encoder, denoiser, base.decoder, prefill, config).train()


def check_unet(channels, layers, prediction):
    "`channels` as a list. Raises InputError where no U-Net of this package has these"
    channels, (widest, most) = [*channels], MOST
    if not 1 <= len(channels) <= most or any(not 1 <= n <= widest for n in channels):
        raise InputError(f"no U-Net of {channels=}: expected 1 to {most} stages of 1 to {widest} channels")
    if not 1 <= layers <= most: raise InputError(f"no U-Net of {layers=}: expected 1 to {most}")
    if prediction not in PREDICTIONS:
        raise InputError(f"no diffusion of {prediction=}: expected {', '.join(map(repr, PREDICTIONS))}")
    return channels


def add_latent_control(net, control):
    """A copy of `net`, a `LatentDiffusion` of `control=None`, that learns of the hole by `control`.

    "controlnet" or "mask"; it equals `net` to the bit, as the zero convolutions are zero. Raises InputError
    for others."""
    if control not in ("controlnet", "mask"):
        raise InputError(f'{control=} is not added to a U-Net: expected "controlnet" or "mask"')
    new = latent_diffusion(**{k: v for k, v in net.config.items() if k != "model"} | dict(control=control),
                           **{} if "autoencoder" in net.config else dict(autoencoder=None))
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("refiner.")}
    new.load_state_dict(state, strict=False)
    with_control(net.refiner, new.refiner)
    new.sampling = net.sampling
    return new.train(net.training)
