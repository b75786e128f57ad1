import random

import numpy as np
import torch

from fastinpaint.data.order import batch_draws, drawn, item_draws, shuffled


def test_a_pass_is_a_permutation_of_its_own():
    first, again, second, other = (shuffled(50, *o) for o in ((1, 0), (1, 0), (1, 1), (2, 0)))
    assert sorted(first) == list(range(50)) and np.array_equal(first, again)
    assert not np.array_equal(first, second) and not np.array_equal(first, other)


def test_any_stretch_of_the_order_is_cut_from_passes_without_end():
    whole = np.concatenate([shuffled(7, 3, i) for i in range(4)])
    for start, stop in (0, 7), (0, 28), (3, 5), (5, 9), (6, 22), (14, 21), (27, 28):
        assert np.array_equal(drawn(7, 3, start, stop), whole[start:stop])


def test_draws_belong_to_seed_and_position_and_leave_the_generators_as_they_were():
    def draw(seed, position):
        with item_draws(seed, position): item = random.random()
        with batch_draws(seed, position, None): return item, torch.rand(3).tolist()
    random.seed(0)
    torch.manual_seed(0)
    expected = random.random(), torch.rand(1)
    random.seed(0)
    torch.manual_seed(0)
    found = [draw(*o) for o in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert (random.random(), torch.rand(1)) == expected
    assert found[0] == found[3] and len({o[0] for o in found}) == len({tuple(o[1]) for o in found}) == 3
