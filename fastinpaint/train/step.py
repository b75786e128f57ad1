"What is known of one training step"
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Step:
    """One batch on its way through a step, as the loss terms read it.

    The learner fills in what every method has. Callbacks add what their own terms read; None until then.
    """
    image: Tensor                       # `[B, 3, H, W]` in [0, 1]
    mask: Tensor                        # `[B, 1, H, W]`, 1 in the hole
    prediction: Tensor | None = None    # Raw `[B, 3, H, W]`; the refined latent where the decoder rests
    latent: Tensor | None = None        # Refined latent `[B, C, h, w]` (`LatentLoss`)
    target: Tensor | None = None        # The encoder's latent of the whole image `[B, C, h, w]` (`LatentLoss`)
    latent_mask: Tensor | None = None   # `mask` padded as the encoder pads (`LatentLoss`)
    real_logits: Tensor | None = None   # The discriminator's `[B, 1, h, w]` of the image (`AdversarialTraining`)
    fake_logits: Tensor | None = None   # The same of the prediction
    real_features: list = field(default_factory=list)  # Its features, a tensor for each layer, of the image
    fake_features: list = field(default_factory=list)  # The same of the prediction
