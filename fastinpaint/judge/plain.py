"Functions of prediction and target, as fast.ai has them, for batches whose targets are an image and its hole"
from copy import copy
from functools import partial
from inspect import Parameter, signature
from types import SimpleNamespace

import torch
from fastai.learner import AvgMetric, Metric, mk_metric
from fastai.losses import BaseLoss
from torch import nn

from ..core.errors import InputError
from ..models.net import composite


def arguments(function, what):
    "How many of prediction, image and mask `function` takes, 2 or 3. Raises InputError, naming `what` it is"
    wrong = InputError(f"a {what} is a function of prediction and image, or of prediction, image and mask, "
                       f"not {function!r}")
    if not callable(function): raise wrong
    if isinstance(function, BaseLoss): return 2  # its signature is that of anything
    try: found = signature(function.forward if isinstance(function, nn.Module) else function).parameters
    except ValueError: return 2  # some that are written in C do not say
    kinds = [p.kind for p in found.values() if p.default is Parameter.empty]
    if Parameter.VAR_POSITIONAL in kinds: return 3
    count = sum(kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
    if count not in (2, 3): raise wrong
    return count


def inpaint_metric(metric):
    """A fastai `Metric` of what `Learner.metrics` takes.

    Those of prediction and target see composite and image; what takes the mask as well is given the raw
    prediction, image and mask. Raises InputError for other functions."""
    if not isinstance(metric, type | Metric): arguments(metric, "metric")
    metric = mk_metric(metric)
    if isinstance(metric, AvgMetric): plain = arguments(metric.func, "metric") == 2
    else: plain = hasattr(metric, "accum_values")  # AccumMetric, whose module is slow to import
    if not plain or "accumulate" in vars(metric): return metric
    new = copy(metric)  # fastai's own, such as rmse, are shared
    new.accumulate = partial(_accumulate, new)
    return new


def _accumulate(metric, learn):
    image, mask = (y.as_subclass(torch.Tensor) for y in learn.yb)
    filled = composite(learn.pred.as_subclass(torch.Tensor), image, mask)
    seen = SimpleNamespace(pred=filled, y=image, yb=(image,), to_detach=learn.to_detach)
    type(metric).accumulate(metric, seen)
