"PatchGAN (Isola et al. 2017) as LaMa uses it: which patches of an image look real?"
import re
from pathlib import Path

import torch
from torch import nn

from ..core.errors import InputError
from ..core.together import channel_statistics
from .published import read_public

MOST_CHANNELS = 512


class PatchGAN(nn.Module):
    """RGB `[B, 3, H, W]` to logits `[B, 1, ~H/16, ~W/16]` of its patches, and to features.

    `width` channels in the first of `layers` convolutions of stride 2, then twice as many each up to 512;
    two of stride 1. BatchNorm in all but first and last: real and fake images pass one after the other."""
    def __init__(self, width=64, layers=4):
        super().__init__()
        if width < 1 or layers < 1: raise InputError(f"no PatchGAN of {width=}, {layers=}")
        channels = [min(width*2**i, MOST_CHANNELS) for i in range(layers)]
        channels.append(min(channels[-1]*2, MOST_CHANNELS))
        self.stages = nn.ModuleList([nn.Sequential(patch_conv(3, width, 2), nn.LeakyReLU(.2))])
        for i, (n_in, n_out) in enumerate(zip(channels, channels[1:], strict=False)):
            conv = patch_conv(n_in, n_out, 2 if i < layers - 1 else 1)
            self.stages.append(nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.LeakyReLU(.2)))
        self.head = patch_conv(channels[-1], 1, 1)

    def forward(self, image):
        "Logits, and the list of features after every stage"
        features = []
        for stage in self.stages: features.append(stage(features[-1] if features else image))
        return self.head(features[-1]), features


def patch_conv(n_in, n_out, stride): return nn.Conv2d(n_in, n_out, 4, stride, padding=2)


class LatentDiscriminator(nn.Module):
    """Whitened latents `[B, C, h, w]` to logits `[B, 1, h, w]`, each of 9×9 latent pixels, and to features.

    Four 3×3 convolutions of `width` channels, without normalisation. `whiten` brings channels to mean 0 and
    standard deviation 1 by those of the latents in the first `measure`."""
    def __init__(self, channels, width=96):
        super().__init__()
        convs = [nn.Conv2d(n, width, 3, padding=1) for n in (channels, width, width)]
        self.stages = nn.ModuleList([nn.Sequential(conv, nn.LeakyReLU(.2)) for conv in convs])
        self.head = nn.Conv2d(width, 1, 3, padding=1)
        for name in "mean", "std": self.register_buffer(name, torch.zeros(1, channels, 1, 1))

    def measure(self, latents):
        "Take statistics of all processes' `latents` `[B, C, h, w]`, if there are none; weak ones count less"
        if self.std.any(): return
        mean, std = channel_statistics(latents)
        self.mean.copy_(mean)
        self.std.copy_(std)

    def whiten(self, latents): return (latents - self.mean)/self.std

    def forward(self, whitened):
        "Logits, and the list of features after every stage"
        features = []
        for stage in self.stages: features.append(stage(features[-1] if features else whitened))
        return self.head(features[-1]), features


def load_discriminator(path):
    """The discriminator in a published LaMa checkpoint (`.ckpt`, state dict, safetensors).

    Width and layers are read off the weights. Raises MissingFile, and InputError where it holds no such one.
    """
    part = re.compile(r"(?:.*\.)?discriminator\.(model\d+\..*)")
    public = {m[1]: v for k, v in read_public(Path(path)).items() if (m := part.fullmatch(k))}
    if "model0.0.weight" not in public:
        raise InputError(f"{path} holds no PatchGAN (no key like discriminator.model0.0.weight)")
    last = max(int(re.match(r"model(\d+)", k)[1]) for k in public)
    model = PatchGAN(public["model0.0.weight"].shape[0], max(last - 1, 1))
    ours = model.state_dict()
    names = {k: re.sub(r"stages\.(\d+)", r"model\1", k.replace("head", f"model{last}.0")) for k in ours}
    wrong = [f"{public[k].shape} {k}" if k in public else f"no {k}" for name, k in names.items()
             if k not in public or public[k].shape != ours[name].shape]
    if wrong: raise InputError(f"{path} is a discriminator of another shape: {', '.join(wrong[:3])}")
    model.load_state_dict({name: public[k] for name, k in names.items()})
    return model


def r1_penalty(logits, image):
    """Squared norm of the gradient of an image's summed logits, batch mean (Mescheder et al. 2018).

    `logits` came of `image` `[B, 3, H, W]`, which requires gradients. Differentiable."""
    grad, = torch.autograd.grad(logits.sum(), image, create_graph=True)
    return grad.square().sum((1, 2, 3)).mean()
