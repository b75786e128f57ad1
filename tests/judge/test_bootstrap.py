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
