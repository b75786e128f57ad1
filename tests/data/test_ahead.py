from contextlib import contextmanager

import pytest
import torch

from fastinpaint.data import loaders
from fastinpaint.data.ahead import ahead
from fastinpaint.data.loaders import InpaintDataLoaders

CUDA = torch.device("cuda")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Part:
    "Stands for a tensor: notes by which stream it is used"
    def __init__(self, name, log): self.name, self.log = name, log
    def record_stream(self, stream): self.log.append(f"{self.name} used by {stream.name}")


@pytest.fixture
def streams(monkeypatch):
    "Stand-ins for CUDA's streams, and the list of what happens to them"
    log = []
    class Stream:
        def __init__(self, device, name="side"): self.name = name
        def wait_stream(self, other): log.append(f"{self.name} waits for {other.name}")
    training = Stream(CUDA, "training")
    current = [training]
    @contextmanager
    def within(stream):
        current.append(stream)
        yield
        current.pop()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[-1])
    def batches(n):
        for i in range(n):
            log.append(f"{i} made on {current[-1].name}")
            yield Part(i, log),
    return batches, log


def test_the_next_batch_is_made_on_its_own_stream_before_one_is_used(streams):
    batches, log = streams
    for part, in ahead(batches(2), CUDA): log.append(f"step {part.name}")
    assert log == ["side waits for training", "0 made on side",
                   "training waits for side", "0 used by training", "1 made on side", "step 0",
                   "training waits for side", "1 used by training", "step 1"]


def test_what_fails_in_a_batch_is_raised_and_none_at_all_is_an_end(streams):
    batches, _ = streams
    assert list(ahead(batches(0), CUDA)) == []
    def failing():
        yield from batches(1)
        raise OSError("gone")
    with pytest.raises(OSError, match="gone"): list(ahead(failing(), CUDA))


@pytest.mark.parametrize("device", [None, torch.device("cpu")], ids=str)
def test_elsewhere_no_batch_is_made_before_it_is_asked_for(device, streams):
    batches, log = streams
    part, = next(ahead(batches(3), device))
    assert part.name == 0 and log == ["0 made on training"]


@gpu
@pytest.mark.parametrize("num_workers", [0, 2])
def test_on_a_gpu_batches_are_those_of_one_stream(folder, num_workers, monkeypatch):
    loading = dict(size=32, bs=4, steps=6, num_workers=num_workers, device=CUDA)
    def epoch():
        dls = InpaintDataLoaders.from_folder(folder, **loading)
        return [[part.clone() for part in batch] for batch in dls.train]
    found = epoch()
    monkeypatch.setattr(loaders, "ahead", lambda batches, device: batches)
    for a, b in zip(found, epoch(), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
