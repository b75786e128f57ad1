"Table 5.1 (1), the baseline"
import fastinpaint as fi


@fi.program
def main(settings: fi.Settings):
    "Table 5.1 (1): L1 in pixels, everything trained, the mask as a fourth input channel"
    return fi.train_recipe("lama_l1", settings, fi.lama)
