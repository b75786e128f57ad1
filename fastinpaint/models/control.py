"How the mask reaches the encoder: as a fourth input channel (LaMa) or through mask control (thesis, § 4.1.1)"
import torch
import torch.nn.functional as F
from torch import nn

from ..kernels import zero_conv_merge


class AlphaChannel(nn.Module):
    """The mask as one more input channel of the encoder's first convolution.

    Only that channel's kernel `weight` `[width, 1, 7, 7]` lives here, zero at first, so that the encoder itself stays
    a plain encoder of RGB images, whose latents are the targets of the latent loss.
    """
    def __init__(self, width, depth=3):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, 1, 7, 7))

    def forward(self, encoder, image, mask):
        first, *rest = encoder.stages
        x = F.pad(torch.cat([image, mask], dim=1), (3, 3, 3, 3), mode="reflect")
        latent = first.act(first.bn(F.conv2d(x, torch.cat([first.conv.weight, self.weight], dim=1))))
        for stage in rest: latent = stage(latent)
        return encoder.add_shortcut(latent, image)


class ZeroConv(nn.Module):
    "1×1 convolution without bias whose weight `[C, C, 1, 1]` starts at zero, added to the features it guides"
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, channels, 1, 1))

    def forward(self, x, guide): return zero_conv_merge(x, guide, self.weight)


class MaskControl(nn.Module):
    """A mask encoder beside the image encoder, merged into it after every stage through zero-initialised convolutions.

    At initialisation the controlled encoder equals the plain encoder to the bit.
    """
    def __init__(self, width, depth=3):
        super().__init__()
        channels = [width*2**i for i in range(depth + 1)]
        convs = [nn.Conv2d(1, width, 1)] + [nn.Conv2d(n, 2*n, 3, stride=2, padding=1) for n in channels[:-1]]
        self.mask_stages = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(n), nn.ReLU(inplace=True))
                                         for conv, n in zip(convs, channels, strict=True))
        self.zero_convs = nn.ModuleList(ZeroConv(n) for n in channels)

    def forward(self, encoder, image, mask):
        latent = image
        for stage, mask_stage, zero_conv in zip(encoder.stages, self.mask_stages, self.zero_convs, strict=True):
            mask = mask_stage(mask)
            latent = zero_conv(stage(latent), mask)
        return encoder.add_shortcut(latent, image)
