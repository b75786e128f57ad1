"A larger canvas: a photograph and its hole, with a border that is hole"
from dataclasses import replace

import numpy as np


def extended(picture, hole, extend):
    """The `Picture` and bool hole `[H, W]` with more canvas: `extend` (left, top, right, bottom), in pixels.

    What is added is hole; until it is filled, the edge goes on there."""
    left, top, right, bottom = extend
    around = (top, bottom), (left, right)
    pixels = np.pad(picture.pixels, (*around, (0, 0)), mode="edge")
    return replace(picture, pixels=pixels), np.pad(hole, around, constant_values=True)
