"Photographs on the way to their results"
from itertools import count, islice
from types import SimpleNamespace

import pytest

from fastinpaint.core.errors import InputError
from fastinpaint.fill.work import Options, batched, of_one_size


def test_neighbours_of_one_size_go_together_and_no_more_are_held_than_these():
    def sizes(*given): return [[work.size for work in some]
                               for some in of_one_size((SimpleNamespace(size=o) for o in given), 3)]
    assert sizes(1, 1, 2, 1, 1, 1, 1) == [[1, 1], [2], [1, 1, 1], [1]] and sizes() == []
    taken = []
    endless = (taken.append(i) or SimpleNamespace(size=0) for i in count())
    assert len([*islice(of_one_size(endless, 3), 2)]) == 2 and len(taken) <= 7


def test_items_in_lists():
    assert [*batched(range(5), 2)] == [[0, 1], [2, 3], [4]] and [*batched([], 2)] == []


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="feather 3 of 2"): Options(dilate=2, feather=3)
    with pytest.raises(TypeError, match="blend"): Options(blend=True)
    with pytest.raises(InputError, match="no 2 fills"): Options(texture=False).check_number(2)
    Options().check_number(2)
    Options(texture=False).check_number(2, generates=True)
    with pytest.raises(InputError, match="no 0 fills"): Options().check_number(0, generates=True)


def test_texture_is_for_networks_that_do_not_generate_unless_it_is_asked_for():
    assert Options().textured(False) and not Options().textured(True)
    assert Options(texture=True).textured(True) and not Options(texture=False).textured(False)
