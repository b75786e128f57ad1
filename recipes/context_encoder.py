"The Context Encoder of Pathak et al. (2016), the first of the learned baselines"
from fastinpaint.all import *
from fastinpaint.core.old_settings import setting


@call_parse
@recipe_flags
def main(
    size: int = setting("size", 128),  # Side of the square crops in pixels, and the one size of the network
    prefill: store_true = False,       # Fill holes smoothly before the encoder sees them, instead of with the mean colour
    lr: float = 1e-3,                  # Highest learning rate of the one-cycle schedule; the discriminator's is a tenth of it
    **kwargs
):
    """Context Encoder (Pathak et al. 2016): squared error in pixels and a little adversarial loss, everything trained.

    The weights are the paper's. Its squared error sees only the hole, here every pixel, and its discriminator judges the whole
    image, here patches. Its network has width 64; `blocks`, `plain` and `autoencoder` mean nothing to it.
    """
    def model(width, prefill, **_): return context_encoder(width, size, prefill)
    gan = AdversarialTraining(weight=.001, feature_matching=0., r1=0., lr=lr/10)
    loss = InpaintLoss(PixelMSE(.999))
    return train_recipe("context_encoder", model, [gan], loss, size=size, prefill=prefill, lr=lr, **kwargs)
