"One size of a photograph: pixels in rows, the patches to be filled and those that may be copied"
import torch
import torch.nn.functional as F

SIDE = 7         # of a patch, in pixels
REACH = SIDE//2  # from its centre to its edge
BLUR = 4         # pixels from the centre of the guide's box filter to its edge
COARSEST = 32    # pixels that the shorter side keeps at the coarsest size


class Level:
    """`image` `[1, 3, h, w]` in [0, 1], its hole filled by the network, and `hole` `[1, 1, h, w]`.

    A pixel, or the patch around it, is known by its row in `colours`, `y·w + x`: `pixels` are those
    of the hole, `targets` are patches that touch it, `sources` those that do not; all within the image."""
    def __init__(self, image, hole):
        self.height, self.width = image.shape[-2:]
        self.colours = _rows(image)
        self.guide = _rows(_blurred(image))  # what a fill has to agree with, in the large
        touched = F.max_pool2d(hole, SIDE, 1) > 0
        within = torch.arange(len(self.colours), device=image.device).view(self.height, self.width)
        within = within[REACH:-REACH, REACH:-REACH]
        self.pixels = hole.flatten().nonzero()[:, 0]
        self.targets, self.sources = within[touched[0, 0]], within[~touched[0, 0]]

    def offsets(self):
        "What leads from the row of a patch's centre to those of its pixels, and their (dy, dx)"
        for dy in range(-REACH, REACH + 1):
            for dx in range(-REACH, REACH + 1): yield dy*self.width + dx, dy, dx

    def image(self):
        "`colours` as `[1, 3, h, w]`"
        return self.colours.T.reshape(1, 3, self.height, self.width)


def pyramid(image, hole):
    "`image` and `hole` as for `Level`, and halved again and again; a pixel is known if all under it are"
    sizes = [(image, hole)]
    while min(sizes[-1][0].shape[-2:]) >= 2*COARSEST:
        image, hole = sizes[-1]
        sizes.append((F.avg_pool2d(image, 2, ceil_mode=True), F.max_pool2d(hole, 2, ceil_mode=True)))
    return sizes


def _rows(image): return image[0].flatten(1).T.contiguous()


def _blurred(image):
    return F.avg_pool2d(F.pad(image, [BLUR]*4, mode="replicate"), 2*BLUR + 1, 1)
