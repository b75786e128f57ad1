"What is known of a training step, and what steps report"
from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields

from torch import Tensor

from ..core.together import total


@dataclass
class Step:
    "One batch as the loss terms read it; `LatentLoss` and others fill in what theirs read"
    image: Tensor                       # `[B, 3, H, W]` in [0, 1]
    mask: Tensor                        # `[B, 1, H, W]`, 1 in the hole
    prediction: Tensor | None = None    # Raw `[B, 3, H, W]`; the latent where the decoder rests
    latent: Tensor | None = None        # The refined latent `[B, C, h, w]`
    iterates: list = field(default_factory=list)  # The refiner's, the last being `latent`, if asked for
    target: Tensor | None = None        # The encoder's latent of the whole image `[B, C, h, w]`
    latent_mask: Tensor | None = None   # `mask` padded as the encoder pads
    code_loss: Tensor | None = None     # What the code of a KL or VQ autoencoder costs
    latent_weight: Tensor | None = None  # Of the errors of `latent` as `target`, `[B, 1, h, w]`
    real_logits: Tensor | None = None   # The discriminator's, `[B, 1, h, w]`, of the image
    fake_logits: Tensor | None = None   # The same of the prediction
    fake_hole: Tensor | None = None     # 1 where it shall find a fake, `[B, 1, …]`
    real_features: list = field(default_factory=list)  # Its features of the image, layer by layer
    fake_features: list = field(default_factory=list)  # The same of the prediction

    def photographs(self):
        "The `Step` of each photograph of the batch alone"
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        def of(i, value):
            if isinstance(value, list): return [of(i, o) for o in value]
            return value[i:i + 1] if isinstance(value, Tensor) and value.ndim else value
        for i in range(len(self.image)): yield Step(**{name: of(i, value) for name, value in known.items()})


class Scalars:
    "Named scalars: `last`, those of the last step, and their means since `reset`"
    def __init__(self): self.reset()
    def reset(self): self.last, self._sums, self._counts = {}, defaultdict(float), Counter()

    def write(self, values):
        "Take in one step's `values`, name → detached scalar"
        self.last |= values
        self._counts.update(values.keys())
        for k, v in values.items(): self._sums[k] = self._sums[k] + v

    def means(self):
        "Over steps, and over processes, all of which ask for them"
        sums = total([*self._sums.values(), *(self._counts[k] for k in self._sums)])
        return {k: sums[i]/sums[i + len(self._sums)] for i, k in enumerate(self._sums)}


class StepLog:
    "The unweighted loss `terms` of training steps, and their `health`: all else worth watching"
    def __init__(self): self.terms, self.health = Scalars(), Scalars()
    def reset(self): self.terms.reset(), self.health.reset()
