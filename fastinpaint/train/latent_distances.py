"Distances between the refined latent and that of the whole image (thesis, § 4.1.3), as loss terms"
import torch
import torch.nn.functional as F

from ..core.device import evaluating
from ..core.errors import InputError
from ..core.ranks import is_main
from ..core.together import channel_statistics, gathered, take_from_main
from .decoder_distance import decoder_gram, decoder_response, foreseen, matrix_root, respond
from .losses import MaskedL1

EDGES = 2.
FAITHFUL = .5
TINY = 1e-30  # at 0 a square root has no gradient
MEASURED = 8  # photographs of the first batch, of all processes, that a decoder is measured on


class LatentDistance(MaskedL1):
    """The mean of `errors` between latent and target, weighted by the hole behind each latent pixel.

    With `iterates` γ > 0 the sum of γ^(n-1-k) times the distance of the k-th of n iterates of the refiner
    (RAFT, Teed & Deng 2020, Eq. 7); with 0 that of the last. Raises InputError for γ outside [0, 1]."""
    metric = None  # what `prepare` found out, a tensor to be kept in checkpoints
    def __init__(self, weight=1., known=1., missing=1., iterates=0.):
        super().__init__(weight, known, missing)
        if not 0 <= iterates <= 1: raise InputError(f"iterates={iterates}: expected a factor in [0, 1]")
        self.iterates = iterates

    def forward(self, step):
        target, mask = step.target, step.latent_mask
        # of small differences, before anything is rounded
        distances = [self.distance(z.float(), target, mask) for z in step.iterates or [step.latent]]
        return sum(self.iterates**i*d for i, d in enumerate(reversed(distances)))

    def distance(self, latent, target, mask):
        errors = self.errors(latent, target)
        return self.l1(errors, torch.zeros_like(errors), mask)  # they are their own absolute value

    def errors(self, latent, target):
        "Of each value or latent pixel, `[B, C, h, w]` or `[B, 1, h, w]`, none negative"
        raise NotImplementedError

    def prepare(self, model, target): "Called before each step; `target` `[B, C, h, w]` is the encoder's"


class LatentL1(LatentDistance):
    "Absolute differences, the thesis' choice"
    name = "latent_l1"
    def distance(self, latent, target, mask): return self.l1(latent, target, mask)


class LatentL2(LatentDistance):
    "Squared differences"
    name = "latent_l2"
    def errors(self, latent, target): return (latent - target).square()


class LatentHuber(LatentDistance):
    "Smooth L1: squares below one standard deviation of the target's channel, else absolute differences"
    name = "latent_huber"
    def errors(self, latent, target):
        _, scale = channel_statistics(target)
        return scale*F.smooth_l1_loss(latent/scale, target/scale, reduction="none")


class LatentCosine(LatentDistance):
    "1 - cosine of the two vectors of channels at each latent pixel: blind to their lengths"
    name = "latent_cosine"
    def errors(self, latent, target): return 1 - F.cosine_similarity(latent, target)[:, None]


class LatentNormalised(LatentDistance):
    "Absolute differences in standard deviations of the target's channel: weak channels count as strong ones"
    name = "latent_normalised"
    def errors(self, latent, target): return (latent - target).abs()/channel_statistics(target)[1]


class LatentDecoder(LatentDistance):
    """Root mean square, at each latent pixel, of what the first fit's decoder makes of the difference.

    To first order, and as if neighbours were right: their parts of the image overlap little."""
    name = "latent_decoder"
    def errors(self, latent, target):
        return torch.linalg.vector_norm(F.conv2d(latent - target, self.metric[..., None, None]), dim=1,
                                        keepdim=True)

    def prepare(self, model, target):
        if self.metric is not None: return
        first = gathered(target)[:MEASURED]
        with evaluating(model.decoder): self.metric = self.measured(model, first)
        take_from_main([self.metric])  # to the last bit

    def measured(self, model, target): return matrix_root(decoder_gram(model.decode, target))


class LatentEdges(LatentDecoder):
    """`LatentDecoder`'s, neighbours included, and `EDGES` times the steps of that difference between pixels.

    Latents whose blocks of the image do not meet have steps there, which are seen as a grid. The decoder is
    taken for linear: its response to the average latent pixel is one transposed convolution. Where that
    foresees less than `FAITHFUL` of what the decoder does, this is `LatentL1`, and says so."""
    name = "latent_edges"
    def distance(self, latent, target, mask):
        if not self.metric.numel(): return self.l1(latent, target, mask)
        stride = mask.shape[-1]//latent.shape[-1]
        image = respond(latent - target, self.metric, stride).float()
        errors = F.avg_pool2d(image.square().mean(1, keepdim=True), stride).clamp_min(TINY).sqrt()
        steps = (image*self.slopes(image, mask)).sum()
        return self.l1(errors, torch.zeros_like(errors), mask) + EDGES*steps

    @torch.no_grad()
    def slopes(self, image, mask):
        """The gradient by `image` of the weighted mean of absolute differences of neighbours on both sides.

        That grows in proportion to the image, so it is the sum of the image times this: one pass forward and
        one back, where autograd would take back each of the steps."""
        slopes, weights = torch.zeros_like(image), [image.new_tensor(w) for w in (self.known, self.missing)]
        for dim in -2, -1:
            steps, n = image.diff(dim=dim), image.shape[dim] - 1
            slope = steps.sign_().mul_(torch.lerp(*weights, either(mask, dim).to(image))).div_(steps.numel())
            slopes.narrow(dim, 1, n).add_(slope)
            slopes.narrow(dim, 0, n).sub_(slope)
        return slopes

    def measured(self, model, target):
        response = decoder_response(model.decode, target, model.stride)
        share = foreseen(response, model.decode, target, model.stride)
        if share >= FAITHFUL: return response
        if is_main():
            print(f"distance edges: this decoder is far from linear (its mean response foresees "
                  f"{max(share, 0):.0%} of what it does), so latents are compared by l1; or try decoder")
        return response[:0]


def either(mask, dim):
    "Where a pixel of `mask` or the next one along `dim` is 1"
    n = mask.shape[dim] - 1
    return torch.maximum(mask.narrow(dim, 0, n), mask.narrow(dim, 1, n))


DISTANCES = {term.name.removeprefix("latent_"): term for term in (
    LatentL1, LatentL2, LatentHuber, LatentCosine, LatentNormalised, LatentDecoder, LatentEdges)}


def latent_distance(name, *args, **kwargs):
    "The term of `DISTANCES` called `name`. Raises InputError for another name"
    if name not in DISTANCES: raise InputError(f"no distance {name!r}: expected {', '.join(DISTANCES)}")
    return DISTANCES[name](*args, **kwargs)
