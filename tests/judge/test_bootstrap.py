"Means with their intervals"
import numpy as np
import pytest

from fastinpaint.judge.bootstrap import bootstrap


def test_the_interval_of_a_mean():
    values, ones = np.random.default_rng(1).normal(3, 1, 400), np.ones(400)
    found = bootstrap(values, ones)
    assert found["value"] == pytest.approx(values.mean()) and found["low"] < found["value"] < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2*1.96*values.std()/20, rel=.1)
    assert bootstrap(np.array([1., 5.]), np.array([3., 1.]))["value"] == 2


def test_values_are_drawn_together_with_their_weights():
    rng = np.random.default_rng(1)
    values, weights = rng.random(30), rng.random(30)
    drawn = np.random.default_rng(0).integers(0, 30, (1000, 30))
    means = (values*weights)[drawn].sum(1)/weights[drawn].sum(1)
    found = bootstrap(values, weights)
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(means, [2.5, 97.5]), rel=1e-12)


def test_one_value_is_its_own_interval():
    assert bootstrap(np.array([3.]), np.array([.5])) == dict(value=3., low=3., high=3.)
