"One size of a photograph: pixels in rows, the patches to be filled and those that may be copied"
import math

import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt

from ...kernels.prefill import smooth_fill

SIDE = 7         # of a patch, in pixels
REACH = SIDE//2  # from its centre to its edge
BLUR = 4         # pixels from the centre of the guide's box filter to its edge
COARSEST = 32    # pixels that the shorter side keeps at the coarsest size
CONTRAST = 1.    # weight of contrast in the guide; 1: as much as one colour
SEEN = 32        # pixels into a hole up to which a network knows what goes where


class Level:
    """`image` `[1, 3, h, w]` in [0, 1], `hole` `[1, 1, h, w]` and `guide` `[1, 4, h, w]`, see `pyramid`.

    A pixel, or the patch around it, is known by its row in `colours`, `y·w + x`: `pixels` are those
    of the hole, `targets` are patches that touch it, `at_edge` says which have a known pixel in the middle,
    `sources` are patches that do not touch it; all within the image."""
    def __init__(self, image, hole, guide):
        self.height, self.width = image.shape[-2:]
        self.colours, self.guide = _rows(image), _rows(guide)
        within = torch.zeros_like(hole, dtype=torch.bool)
        within[..., REACH:-REACH, REACH:-REACH] = True
        touching = F.max_pool2d(hole, SIDE, 1, REACH) > 0
        self.is_source = (within & ~touching).flatten()
        self.sources, self.targets, self.pixels = (
            chosen.flatten().nonzero()[:, 0] for chosen in (self.is_source, within & touching, hole))
        self.at_edge = hole.flatten()[self.targets] == 0

    def offsets(self):
        "What leads from the row of a patch's centre to those of its pixels, and their (dy, dx)"
        for dy in range(-REACH, REACH + 1):
            for dx in range(-REACH, REACH + 1): yield dy*self.width + dx, dy, dx

    def everywhere(self, match):
        "Sources `match` `[targets]` by rows of `colours`, -1 for what is no target"
        found = self.targets.new_full((len(self.colours),), -1)
        found[self.targets] = match
        return found

    def continued(self, found, at):
        """Sources for the patches `at` `[n]`: those `found` for them, see `everywhere`, and what goes on with
        those of their four neighbours; -1 where there is none."""
        for step in 0, -1, 1, -self.width, self.width:
            of = found[at + step]
            source = torch.where(of >= 0, of - step, 0).clamp(0, len(self.colours) - 1)
            yield torch.where((of >= 0) & self.is_source[source], source, -1)

    def enlarged(self, to):
        "Colours of the hole's pixels of the level `to`, twice the size"
        image = self.colours.T.reshape(1, 3, self.height, self.width)
        return _rows(_twice(image, (to.height, to.width), "bicubic").clamp(0, 1))[to.pixels]

    def doubled(self, match, to):
        """Sources of the targets of the level `to`, twice the size, as far as `match` `[targets]` says them.

        -1 where what it leads to is no source."""
        found = self.everywhere(match)
        y, x = to.targets//to.width, to.targets % to.width
        up = (y//2).clamp(REACH, self.height - 1 - REACH), (x//2).clamp(REACH, self.width - 1 - REACH)
        of = found[up[0]*self.width + up[1]]
        y, x = 2*(of//self.width - up[0]) + y, 2*(of % self.width - up[1]) + x
        inside = (of >= 0) & (y >= 0) & (y < to.height) & (x >= 0) & (x < to.width)
        at = torch.where(inside, y*to.width + x, 0)  # the first pixel is too near the edge for a source
        return torch.where(to.is_source[at], at, -1)


def pyramid(image, hole, blind):
    """The arguments of a `Level` at full size, and halved again and again; `blind` is the hole's `blindness`.

    `image` is filled by the network. A pixel is known if all under it are. Patches become like the guide."""
    images, holes = [image], [hole]
    for _ in range(depth(image.shape[-2:]) - 1):
        images.append(F.avg_pool2d(images[-1], 2, ceil_mode=True))
        holes.append(F.max_pool2d(holes[-1], 2, ceil_mode=True))
    return [*zip(images, holes, _guides(images, holes, blind), strict=True)]


def _guides(images, holes, blind):
    "Blurred colours, of sizes that the network cannot judge those of the first that it can, and contrast"
    guides = [_blurred(image) for image in images]
    for i in reversed(range(min(blind, len(images) - 1))):
        guides[i] = _twice(guides[i + 1], images[i].shape[-2:], "bilinear")
    return [torch.cat([guide, CONTRAST*_contrast(image, hole)], 1)
            for guide, image, hole in zip(guides, images, holes, strict=True)]


def depth(size):
    "Number of sizes in the `pyramid` of an image of this `size`, its height and width"
    return max(int(math.log2(min(size)/COARSEST)), 0) + 1


def blindness(hole):
    "How often a photograph has to be halved for a network to see into `hole`, bool `[h, w]`"
    return max(int(math.log2(distance_transform_edt(hole).max()/SEEN)), 0)


def _contrast(image, hole):
    "Standard deviation of the brightness around each pixel `[1, 1, h, w]`; in the hole as around it"
    grey = image.mean(1, keepdim=True)
    spread = (_blurred(grey.square()) - _blurred(grey).square()).clamp_min(0).sqrt()
    return smooth_fill(spread, F.max_pool2d(hole, 2*BLUR + 1, 1, BLUR))


def _rows(image): return image[0].flatten(1).T.clone(memory_format=torch.contiguous_format)


def _twice(image, size, mode):
    return F.interpolate(image, scale_factor=2, mode=mode, align_corners=False)[..., :size[0], :size[1]]


def _blurred(image):
    return F.avg_pool2d(F.pad(image, [BLUR]*4, mode="replicate"), 2*BLUR + 1, 1)
