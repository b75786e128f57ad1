"Table 5.1 (3)"
import fastinpaint as fi

# the convolution and the linear path beside it, not their BatchNorm
FIRST_CONV = "encoder.stages.0.[cl]*"


@fi.program
def main(settings: fi.Settings):
    "Table 5.1 (3): latent L1, the mask as a fourth channel; the first convolution trains, too"
    cbs = [fi.FreezeSchedule(keep=FIRST_CONV), fi.LatentLoss(known=.1)]
    return fi.train_recipe("latent", settings, fi.lama, cbs)
