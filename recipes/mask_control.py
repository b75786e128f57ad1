"Table 5.1 (2)"
from fastinpaint.all import *


@call_parse
@recipe_flags
def main(**kwargs):
    "Table 5.1 (2): L1 in pixels through a frozen decoder, mask control on a frozen encoder"
    return train_recipe("mask_control", partial(lama, control="mask"), [FreezeSchedule()], **kwargs)
