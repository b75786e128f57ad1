"A fill and texture on top of it, called like a model, for those that judge"
import numpy as np
import torch

from fastinpaint.fill.texture.several import textured
from fastinpaint.models.net import composite
from fastinpaint.models.refiner import without_detail


def with_texture(fill):
    "`fill(image, mask)` of `[B, 3, H, W]` in [0, 1] and `[B, 1, H, W]`, followed by `textured`, in 8 bits"
    if isinstance(fill, torch.nn.Module): fill = without_detail(fill)
    @torch.no_grad()
    def both(image, mask):
        pixels = (composite(fill(image, mask), image, mask).clamp(0, 1)*255).round().byte()
        pixels = pixels.permute(0, 2, 3, 1).cpu().numpy()
        holes = mask[:, 0].cpu().numpy() > .5
        results = [textured(*o, o[0])[0] for o in zip(pixels, holes, strict=True)]
        return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2).to(image)/255
    return both
