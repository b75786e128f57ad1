"Networks for LaMa's perceptual loss: ResNet-50 of ADE20K or ImageNet, or VGG-16"
from pathlib import Path

import torch
from torch import nn

from ..core.download import hub_file
from .pretrained import PYTORCH, WeightsMissing, lpips_net, read, weights_file

# LaMa's; the file's name holds no checksum, so it is not downloaded unasked
ADE20K = ("http://sceneparsing.csail.mit.edu/model/pytorch/ade20k-resnet50dilated-ppm_deepsup/"
          "encoder_epoch_20.pth")
RESNET50 = PYTORCH + "resnet50-0676ba61.pth"
IMAGENET = dict(mean=(.485, .456, .406), std=(.229, .224, .225))  # of its photographs
# the stem of the ADE20K network has three convolutions where timm's has one Sequential
ADE_STEM = {"conv1": "conv1.0", "bn1": "conv1.1", "conv2": "conv1.3", "bn2": "conv1.4",
            "conv3": "conv1.6", "bn3": "bn1"}


def perceptual_network(choice: str = "auto"):
    """A frozen network whose features LaMa's perceptual loss compares, and its name.

    `choice`: a file of an ADE20K encoder (dilated ResNet-50), "ade20k" (LaMa's file, in torch hub's cache),
    "imagenet" (its twin), "vgg" (VGG-16's stages), "auto" (the first of these two to be had, else None), or
    "none". It maps RGB [B,3,H,W] in [0, 1] to a list of features. Raises `WeightsMissing`; never random."""
    if choice == "none": return None, "none"
    makers = {"imagenet": _imagenet_resnet, "vgg": _UnitStages}
    if choice in makers: return FeatureMaps(makers[choice]()), choice
    if choice == "ade20k": choice = hub_file(ADE20K)
    if choice != "auto": return FeatureMaps(_ade_resnet(Path(choice))), f"ade20k {choice}"
    reasons = []
    for name, make in makers.items():
        try: return FeatureMaps(make()), name
        except WeightsMissing as error: reasons.append(str(error))
    print("No perceptual term: there are no weights for it.", *reasons, sep="\n  ")
    return None, "none"


class FeatureMaps(nn.Module):
    "Lists what `features` makes of an image, normalised as ImageNet's networks expect. Frozen."
    def __init__(self, features):
        super().__init__()
        self.features = features
        for name, values in IMAGENET.items():
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, image): return list(self.features((image - self.mean)/self.std))


class _UnitStages(nn.Module):
    """VGG-16's five stages with features of unit length, as in LPIPS.

    Raw ones make a term a hundred times as large as LaMa's others. Scaled so that the sum of their mean
    squared distances is the mean over stages of the distance of unit vectors."""
    def __init__(self):
        super().__init__()
        self.trunk = lpips_net("vgg").net

    def forward(self, x):
        maps = self.trunk(x)
        def unit(y): return nn.functional.normalize(y, dim=1, eps=1e-5)
        return [unit(y)*(y.shape[1]/len(maps))**.5 for y in maps]


def _imagenet_resnet(): return _loaded(_dilated_resnet(), weights_file(RESNET50), str)


def _ade_resnet(path: Path):
    if not path.is_file():
        raise WeightsMissing(f"no weights at {path}: put {ADE20K} there, or name another file, auto, "
                             "imagenet, vgg or none")
    return _loaded(_dilated_resnet(stem_type="deep", stem_width=64), path, _ade_name)


def _ade_name(key: str) -> str:
    head, _, rest = key.removeprefix("encoder.").partition(".")
    return f"{ADE_STEM.get(head, head)}.{rest}"


def _dilated_resnet(**stem):
    "ResNet-50 with output stride 8, that gives its four stages"
    import timm  # takes seconds
    with torch.random.fork_rng(devices=[]):
        return timm.create_model("resnet50", pretrained=False, features_only=True, output_stride=8,
                                 out_indices=(1, 2, 3, 4), **stem)


def _loaded(network, path: Path, name):
    "`network` with the tensors of `path`, whose keys `name` makes ours; the classifier is left out"
    state = {name(key): value for key, value in read(path).items()}
    try: network.load_state_dict({key: state[key] for key in network.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise WeightsMissing(f"{path} holds other weights than ResNet-50's: {error}") from error
    return network
