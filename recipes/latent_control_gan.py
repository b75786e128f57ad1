"Table 5.2 (2)"
from functools import partial

import fastinpaint as fi


@fi.program
def main(settings: fi.AdversarialSettings):
    "Table 5.2 (2): all of LaMa's losses and the latent L1, mask control on a frozen autoencoder"
    loss, chosen = fi.full_loss(settings.perceptual)
    gan = fi.AdversarialTraining(r1_every=settings.r1_every, lr=settings.lr_d)
    cbs = [fi.FreezeSchedule(), fi.LatentLoss(1e-4, pixel=True), gan]
    model = partial(fi.lama, control="mask")
    return fi.train_recipe("latent_control_gan", settings, model, cbs, loss, chosen)
