"Table 5.2 (2)"
from fastinpaint.all import *


@call_parse
@recipe_flags
def main(
    perceptual: str = "auto",  # Perceptual network: auto, imagenet, vgg, none, or a file of ADE20K weights
    r1_every: int = 1,         # Steps between two R1 penalties
    lr_d: float = 1e-4,        # Learning rate of the discriminator
    lr: float = 1e-3,          # Highest learning rate of the one-cycle schedule
    **kwargs
):
    "Table 5.2 (2): all of LaMa's losses and the latent L1, with mask control on a frozen autoencoder"
    loss, chosen = full_loss(perceptual)
    chosen |= dict(r1_every=r1_every, lr_d=lr_d)
    cbs = [FreezeSchedule(), LatentLoss(1e-4, pixel=True), AdversarialTraining(r1_every=r1_every, lr=lr_d)]
    return train_recipe("latent_control_gan", partial(lama, control="mask"), cbs, loss, chosen, lr=lr, **kwargs)
