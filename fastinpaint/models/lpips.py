"LPIPS 0.1 (Zhang et al. 2018) as a network: its own package imports torchvision, for two seconds"
import torch
from torch import nn


def _stage(*convs, pool=None):
    layers = [layer for conv in convs for layer in (nn.Conv2d(*conv), nn.ReLU(inplace=True))]
    return nn.Sequential(*[nn.MaxPool2d(*pool)] if pool else [], *layers)


def _alex():
    pool = 3, 2
    return (_stage((3, 64, 11, 4, 2)), _stage((64, 192, 5, 1, 2), pool=pool),
            _stage((192, 384, 3, 1, 1), pool=pool), _stage((384, 256, 3, 1, 1)), _stage((256, 256, 3, 1, 1)))


def _vgg():
    shapes = (3, 64, 64), (64, 128, 128), (128, *[256]*3), (256, *[512]*3), (512, *[512]*3)
    return (_stage(*((*n, 3, 1, 1) for n in zip(o, o[1:], strict=False)), pool=(2, 2) if o[0] > 3 else None)
            for o in shapes)


STAGES = dict(alex=_alex, vgg=_vgg)


class Trunk(nn.Module):
    "The convolutions of a classifier of ImageNet: RGB [B,3,H,W] to the features that each stage ends with"
    def __init__(self, net):
        super().__init__()
        self.stages = nn.ModuleList(STAGES[net]())

    def forward(self, x):
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class LPIPS(nn.Module):
    "Distance `[B]` of RGB images `[B, 3, H, W]` in [0, 1]: weighted squared distances of unit features"
    def __init__(self, net):
        super().__init__()
        self.trunk = Trunk(net)
        widths = [stage[-2].out_channels for stage in self.trunk.stages]
        self.weights = nn.ParameterList(torch.zeros(n) for n in widths)
        # for images in [-1, 1]
        self.register_buffer("shift", torch.tensor([-.030, -.088, -.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([.458, .448, .450]).view(1, 3, 1, 1))

    def forward(self, a, b):
        images = (2*torch.cat([a, b]) - 1 - self.shift)/self.scale
        return sum(map(self._distance, self.trunk(images), self.weights))

    def _distance(self, features, weight):
        a, b = (features/(features.norm(dim=1, keepdim=True) + 1e-10)).chunk(2)
        return (a - b).square().mean((2, 3)) @ weight
