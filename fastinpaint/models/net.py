"Any inpainting network, `decode(refine(encode(masked, mask)))`, and composites of its predictions"
import torch
from torch import Tensor, nn

from ..kernels.prefill import smooth_fill
from .folded import copied, folded, offers


def reflect_index(size, length, device):
    "Indices that extend an axis of `size` to `length` by reflection, however short it is"
    period = max(2*(size - 1), 1)
    i = torch.arange(length, device=device) % period
    return torch.minimum(i, period - i) if size > 1 else torch.zeros_like(i)


def span(line, stride):
    "First latent pixel in which `line` `[N]` is not 0, and the one after the last; None where all is 0"
    where = line.nonzero()
    return (where[0].item()//stride, where[-1].item()//stride + 1) if len(where) else None


class InpaintNet(nn.Module):
    """Any inpainting network of the form `decode(refine(encode(masked, mask)))`, for images of every size.

    `conditioner(encoder, masked, mask)` tells the encoder of the mask, `prefill` fills the hole before, and
    `config` rebuilds the model. Images are reflected up to multiples of `encoder.stride`."""
    generates = False  # whether `forward` takes a `seed`, by which fills differ
    def __init__(self, encoder, refiner, decoder, conditioner=None, prefill=False, config=None):
        super().__init__()
        self.encoder, self.refiner, self.decoder = encoder, refiner, decoder
        self.conditioner, self.prefill = conditioner, prefill
        self.config = config or {}
        self.stride = encoder.stride
        self.decode_in_training = True  # switched off while no loss looks at pixels
        self.holes_only = False  # switched on where nothing else is looked at

    def encode(self, image, mask=None):
        """Latent `[B, C, ⌈H/s⌉, ⌈W/s⌉]` of `image` `[B, 3, H, W]`; without `mask` the plain one.

        Raises ValueError where shapes do not fit."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"an image batch is [B, 3, H, W], got {list(image.shape)}")
        if mask is None or self.conditioner is None: return self.encoder(self.pad(image))
        if mask.shape != (image.shape[0], 1, *image.shape[2:]):
            raise ValueError(f"the mask of an image batch {list(image.shape)} is [B, 1, H, W], "
                             f"got {list(mask.shape)}")
        image, mask = self.pad(image), self.pad(mask)
        if self.prefill: image = smooth_fill(image, mask)
        return self.conditioner(self.encoder, image, mask)

    def resting(self):
        "Parts that a forward pass of training leaves out"
        return [] if self.decode_in_training else [self.decoder]

    def refine(self, latent): return self.refiner(latent)

    def decode(self, latent, image=None, mask=None):
        """RGB image `[B, 3, s·h, s·w]` of a latent.

        Of decoders that `sees_known` the masked `image` and `mask` of `encode`, where given, help."""
        if image is None or not getattr(self.decoder, "sees_known", False): return self.decoder(latent)
        return self.decoder(latent, self.pad(image), self.pad(mask))

    def forward(self, masked, mask):
        """Raw prediction `[B, 3, H, W]`, not composited.

        In training the refined latent, if `decode_in_training` is off; with `holes_only` the image where no
        hole is near, if the decoder allows for it."""
        latent = self.refine(self.encode(masked, mask))
        if self.training and not self.decode_in_training: return latent
        if self.holes_only and hasattr(self.decoder, "reach"): return self.decode_holes(latent, masked, mask)
        return self.decode(latent, masked, mask)[..., :masked.shape[-2], :masked.shape[-1]]

    def decode_holes(self, latent, masked, mask):
        """`decode` in the box around the holes of all images, `masked` elsewhere: `[B, 3, H, W]`.

        For decoders of which a pixel depends on latents at most `reach` away."""
        boxes = [span(mask.amax([0, 1, dim]), self.stride) for dim in (3, 2)]
        if None in boxes: return masked
        (y, bottom), (x, right) = boxes
        s, reach, filled = self.stride, self.decoder.reach, masked.clone()
        top, left = max(y - reach, 0), max(x - reach, 0)
        seen = self.decode(latent[..., top:bottom + reach, left:right + reach])
        box = filled[..., y*s:bottom*s, x*s:right*s]  # less where the image ends within a latent pixel
        box.copy_(seen[..., (y - top)*s:, (x - left)*s:][..., :box.shape[-2], :box.shape[-1]])
        return filled

    def pad(self, x):
        "Reflect `x` `[B, C, H, W]` up to a multiple of the stride, of two latent pixels at least"
        x = x.as_subclass(torch.Tensor)  # fastai's own types refuse to be mixed
        size = [max(-(-n//self.stride), 2)*self.stride for n in x.shape[-2:]]
        for dim, length in zip((-2, -1), size, strict=True):
            if x.shape[dim] == length: continue
            x = x.index_select(dim, reflect_index(x.shape[dim], length, x.device))
        return x

    def folded(self, winograd=None):
        """A network for inference, equal to this one in eval mode up to rounding, in fewer passes.

        It encodes, refines and decodes alike, for gradients of latents too. `winograd` (default on a CPU)
        halves the time of wide refiners for four times their memory; not for half precision. Hooks stay
        behind, `config` is empty, and a conditioner without `folded_with` gets an unfolded encoder."""
        if winograd is None: winograd = next(self.parameters()).device.type == "cpu"
        net = copied(self, lambda part: folded(part, winograd))
        if offers(self.conditioner, "folded_with"):
            net.conditioner = self.conditioner.folded_with(self.encoder)
        elif self.conditioner is not None:
            net.encoder, net.conditioner = copied(self.encoder), copied(self.conditioner)
        net.config = {}
        return net


def composite(pred: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """What users get, in [0, 1]: `pred` [B,3,H,W] in the hole of `mask` [B,1,H,W], else `image`.

    Known pixels are bit-identical to the image, whatever was predicted there."""
    pred, image, mask = (tensor.as_subclass(Tensor) for tensor in (pred, image, mask))
    return torch.where(mask > 0.5, pred, image).clamp(0, 1)
