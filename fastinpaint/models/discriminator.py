"PatchGAN (Isola et al. 2017) as LaMa uses it: which patches of an image look real?"
import re
from pathlib import Path

import torch
from torch import nn

from ..core.errors import InputError
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
