"diffusers' autoencoders in the form of ours: an encoder of stages, a decoder, images in [0, 1]"
from itertools import pairwise
from math import inf, prod

import torch
from torch import nn

from ..core.errors import InputError

MOST_ATTENDED = 128**2  # latent pixels all of which look at all others, at most
PROBE = 64  # pixels: the side of the image whose way through the stages is watched


class Scaling(nn.Module):
    """Latents of about unit variance, as diffusers' pipelines make them of `[B, C, h, w]`, and back.

    By the config's `scaling_factor`, and by its `shift_factor`, or `latents_mean` and `latents_std`."""
    def __init__(self, config):
        super().__init__()
        mean, std = (config.get(name) for name in ("latents_mean", "latents_std"))
        if mean is None or std is None: mean, std = config.get("shift_factor") or 0., 1.
        self.factor = config.get("scaling_factor") or 1.
        for name, values in dict(mean=mean, std=std).items():
            values = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, latent): return (latent - self.mean)*self.factor/self.std
    def undone(self, latent): return latent*self.std/self.factor + self.mean


class First(nn.Module):
    "The first convolution, of an image in [0, 1], which it wants in [-1, 1]"
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, image): return self.conv(2.*image - 1.)


class Unsigned(nn.Module):
    "From [-1, 1], in which diffusers gives TAESD its images, to the [0, 1] of its layers"
    def forward(self, image): return image.add(1).div(2)


class Mode(nn.Module):
    "The mode of a Gaussian posterior, of its moments `[B, 2C, h, w]`"
    def forward(self, moments): return moments.chunk(2, dim=1)[0]


class WithMeans(nn.Module):
    "`conv`, and beside it the means of groups of as many channels as it makes of one"
    def __init__(self, conv):
        super().__init__()
        self.conv, self.group = conv, conv.in_channels//conv.out_channels

    def forward(self, x): return self.conv(x) + x.unflatten(1, (-1, self.group)).mean(dim=2)


class LatentEncoder(nn.Module):
    """RGB image `[B, 3, H, W]` in [0, 1] to the scaled latent `[B, C, H/s, W/s]`, a distribution's mode.

    `stages`, of `channels` and `strides`, are diffusers' own blocks one after the other, the first a single
    convolution. `stride` s is that of them all. Raises InputError where a stride is no whole number."""
    memory = 2.  # of a pass, in that of a LaMa of as many channels at first
    def __init__(self, stages, scaling):
        super().__init__()
        first, *stages, last = stages
        self.stages = nn.Sequential(First(first), *stages, nn.Sequential(last, scaling))
        self.channels, self.strides = shapes(self.stages)
        self.stride = prod(self.strides)
        attends = any(type(m).__name__ == "Attention" for m in self.modules())
        self.most_pixels = MOST_ATTENDED*self.stride**2 if attends else inf

    def forward(self, image): return self.stages(image)


class LatentDecoder(nn.Module):
    "Scaled latent `[B, C, h, w]` to an RGB image `[B, 3, s·h, s·w]`, about in [0, 1]"
    sees_known = False  # whether it takes image and mask, too
    def __init__(self, vae, scaling):
        super().__init__()
        self.post, self.decoder, self.scaling = getattr(vae, "post_quant_conv", None), vae.decoder, scaling

    def forward(self, latent): return self.image(self.decoder(self.raw(latent)))
    def raw(self, latent): return self.mixed(self.scaling.undone(latent))
    def mixed(self, latent): return latent if self.post is None else self.post(latent)
    def image(self, signed): return signed*.5 + .5


class CodeDecoder(LatentDecoder):
    "A `LatentDecoder` that takes the nearest code for every latent pixel; gradients go straight through"
    def __init__(self, vae, scaling):
        super().__init__(vae, scaling)
        self.quantize, self.spatial = vae.quantize, vae.config.norm_type == "spatial"

    def forward(self, latent):
        codes, *_ = self.quantize(self.scaling.undone(latent))
        return self.image(self.decoder(self.mixed(codes), codes if self.spatial else None))


class KnownDecoder(LatentDecoder):
    "A `LatentDecoder` to which `image` `[B, 3, H, W]` helps outside of the hole of `mask` `[B, 1, H, W]`"
    sees_known = True
    def forward(self, latent, image=None, mask=None):
        if mask is None: return super().forward(latent)
        return self.image(self.decoder(self.raw(latent), 2.*image - 1., mask))


@torch.no_grad()
def shapes(stages):
    "Channels of `stages`, and their strides, read off an image on its way through them"
    x = torch.zeros(1, 3, PROBE, PROBE)
    outputs = [x, *(x := stage(x) for stage in stages)]
    sizes = [y.shape[-1] for y in outputs]
    if any(big % small for big, small in pairwise(sizes)):
        raise InputError(f"an encoder that turns {PROBE} pixels into {sizes[1:]}, stage by stage: "
                         "expected whole strides")
    return [y.shape[1] for y in outputs[1:]], [big//small for big, small in pairwise(sizes)]


def convolutional(vae, *more):
    "Stages of an encoder of Stable Diffusion's layers, followed by `more`"
    encoder, quant = vae.encoder, [vae.quant_conv]*(vae.quant_conv is not None)
    head = encoder.mid_block, encoder.conv_norm_out, encoder.conv_act, encoder.conv_out
    return [encoder.conv_in, *encoder.down_blocks, nn.Sequential(*head, *quant, *more)]


def gaussian(vae): return convolutional(vae, Mode())


def tiny(vae):
    "Stages of TAESD, each of which begins where the size is halved"
    first, *layers, last = vae.encoder.layers
    halves = [i for i, layer in enumerate(layers) if getattr(layer, "stride", (1, 1)) != (1, 1)]
    parts = [nn.Sequential(*layers[a:b]) for a, b in pairwise([0, *halves, len(layers)])]
    return [nn.Sequential(Unsigned(), first), *filter(len, parts), last]


def compressing(vae):
    "Stages of a deep compression autoencoder"
    encoder = vae.encoder
    last = WithMeans(encoder.conv_out) if encoder.out_shortcut else encoder.conv_out
    return [encoder.conv_in, *filter(len, encoder.down_blocks), last]


# by the names of diffusers' classes: what cuts the encoder into stages, and the decoder
ADAPTERS = {"AutoencoderKL": (gaussian, LatentDecoder),
            "AsymmetricAutoencoderKL": (gaussian, KnownDecoder),
            "VQModel": (convolutional, CodeDecoder),
            "AutoencoderTiny": (tiny, LatentDecoder),
            "AutoencoderDC": (compressing, LatentDecoder)}


def adapted(vae):
    "`LatentEncoder` and `LatentDecoder` of the parts of `vae`, an autoencoder of one of the `ADAPTERS`"
    stages, decoder = ADAPTERS[type(vae).__name__]
    scaling = Scaling(vae.config)
    return LatentEncoder(stages(vae), scaling), decoder(vae, scaling)
