"Table 5.2 (1)"
import fastinpaint as fi


@fi.program
def main(settings: fi.AdversarialSettings):
    "Table 5.2 (1): LaMa with its losses: known-pixel L1, perceptual, adversarial, features"
    loss, chosen = fi.full_loss(settings.perceptual)
    gan = fi.AdversarialTraining(r1_every=settings.r1_every, lr=settings.lr_d)
    return fi.train_recipe("lama", settings, fi.lama, [gan], loss, chosen)
