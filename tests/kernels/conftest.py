import warnings

import pytest
import torch


@pytest.fixture
def poisoned_memory():
    "Uninitialised memory is NaN, so that whatever a kernel forgets to write shows"
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.use_deterministic_algorithms(False)
