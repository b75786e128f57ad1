import random

import numpy as np
import pytest
import torch

from fastinpaint.data.order import batch_draws, drawn, item_draws, shuffled, shuffled_shards

COUNTS = [5, 0, 7, 1, 6]*20


def test_a_pass_has_every_photograph_once_and_depends_on_seed_and_pass_alone():
    for order in (lambda *a: shuffled(380, *a), lambda *a: shuffled_shards(COUNTS, *a)[0]):
        first = order(3, 0)
        assert sorted(first) == list(range(380)) and np.array_equal(first, order(3, 0))
        assert not np.array_equal(first, order(3, 1)) and not np.array_equal(first, order(4, 0))


@pytest.mark.parametrize("window", [1, 4])
def test_few_shards_are_read_at_a_time_and_their_photographs_are_mixed(window):
    counts = [50]*40
    order, turns = shuffled_shards(counts, 0, 0, window)
    shards = order//50
    assert sorted(turns) == list(range(40))
    for start in range(0, 2000, 50):
        # those whose turn is within the window's length, as it begins or ends amid shards
        assert len(set(shards[start:start + 50])) <= window + 1
    # not shard after shard: neighbours come from different ones, as often as a window of them allows
    assert (np.diff(shards) != 0).mean() > .8*(1 - 1/window)
    # each is done with after its turn and the window's length, on the circle of a pass
    spans = [np.ptp((np.flatnonzero(shards == k) - 50*(i - 1)) % 2000) for i, k in enumerate(turns)]
    assert max(spans) <= 50*(window + 2)


def test_with_fewer_shards_than_the_window_all_are_mixed():
    order, _ = shuffled_shards([100, 100], 0, 0)
    assert abs((order[:100] < 100).mean() - .5) < .2


def test_shards_take_their_turns_in_another_order_each_pass():
    turns = [tuple(shuffled_shards(COUNTS, 0, i)[1]) for i in range(5)]
    assert len(set(turns)) == 5 and all(len(o) == 80 for o in turns)  # those without photographs have none


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
