"How sure a mean over images is"
import numpy as np
from scipy import stats


def bootstrap(values, weights, resamples=1000, seed=0):
    """Mean of `values` `[n]` weighted by `weights` `[n]`: dict of value, low and high.

    low and high bound the 95 % percentile interval over values with their weights; one value is its own."""
    def mean(v, w, axis): return (v*w).sum(axis)/w.sum(axis)
    value = low = high = mean(values, weights, -1)
    if len(values) > 1:
        low, high = stats.bootstrap(
            (values, weights), mean, paired=True, vectorized=True, method="percentile",
            n_resamples=resamples, rng=np.random.default_rng(seed)).confidence_interval
    return dict(value=float(value), low=float(low), high=float(high))
