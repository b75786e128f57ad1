"Table 5.1 (1), the baseline"
from fastinpaint.all import *


@call_parse
@recipe_flags
def main(**kwargs):
    "Table 5.1 (1): L1 in pixels, everything trained, the mask as a fourth input channel"
    return train_recipe("lama_l1", lama, [], **kwargs)
