"Photographs and their holes"
import numpy as np
import pytest
from PIL import Image

from fastinpaint.core.errors import InputError
from fastinpaint.judge.protocol import holes


def drawn(photos, *args, **kwargs): return [item.hole for item in holes(photos, *args, size=32, **kwargs)]


def test_every_photograph_has_a_hole_of_its_own(photos):
    first, *others = drawn(photos, "thin")
    assert len(others) == 7 and not any(np.array_equal(first, hole) for hole in others)


def test_mask_sets_of_one_kind_differ_by_their_name(photos, tmp_path):
    for pool in "ab":
        (tmp_path/pool).mkdir()
        for i in range(8):
            mask = np.zeros((32, 32), np.uint8)
            mask[4*i:4*i + 4, 8:] = 255
            Image.fromarray(mask).save(tmp_path/pool/f"{i}.png")
    a, again, b = (drawn(photos, f"pool:{tmp_path/pool}") for pool in "aab")
    assert all(map(np.array_equal, a, again)) and not all(map(np.array_equal, a, b))


def test_a_limit_takes_the_first_photographs(photos):
    assert [item.name for item in holes(photos, ["thin", "thick"], 32, limit=2)] == ["0.png", "1.png"]*2


@pytest.mark.parametrize("size", [0, -8])
def test_a_size_without_pixels_is_refused(photos, size):
    with pytest.raises(InputError, match=f"of {size} pixels"): next(holes(photos, "thick", size))
