"What is known of one training step"
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Step:
    """One batch on its way through a step, as the loss terms read it.

    The learner fills in what every method has, `LatentLoss` and `AdversarialTraining` what their
    own terms read.
    """
    image: Tensor                       # `[B, 3, H, W]` in [0, 1]
    mask: Tensor                        # `[B, 1, H, W]`, 1 in the hole
    prediction: Tensor | None = None    # Raw `[B, 3, H, W]`; the latent where the decoder rests
    latent: Tensor | None = None        # The refined latent `[B, C, h, w]`
    target: Tensor | None = None        # The encoder's latent of the whole image `[B, C, h, w]`
    latent_mask: Tensor | None = None   # `mask` padded as the encoder pads
    real_logits: Tensor | None = None   # The discriminator's, `[B, 1, h, w]`, of the image
    fake_logits: Tensor | None = None   # The same of the prediction
    real_features: list = field(default_factory=list)  # Its features of the image, layer by layer
    fake_features: list = field(default_factory=list)  # The same of the prediction
