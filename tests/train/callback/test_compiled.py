import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.torch_core import set_seed
from torch import nn

from fastinpaint.core.errors import InputError
from fastinpaint.models.fcf import fcf
from fastinpaint.train.callback import compiled
from fastinpaint.train.callback.checkpoint import Checkpoint
from fastinpaint.train.callback.compiled import Compiled, compiler, regions
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.learner import inpaint_learner


class Watch(Callback):
    "Losses of training steps, and how many graphs torch has compiled by the end of each epoch"
    order = 99
    def __init__(self): self.losses, self.graphs = [], []
    def after_step(self): self.losses.append(self.loss.item())
    def after_epoch(self): self.graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.fixture
def learner(tiny_lama, tmp_path):
    "Makes a learner on three batches, the last of one image, of which validation has one of another size"
    def make(*cbs):
        set_seed(0)
        batches = [batch(n, i) for i, n in enumerate((2, 2, 1))]
        dls = DataLoaders(batches, [batch(2, 3, 40), batch(1, 4)], path=tmp_path, device="cpu")
        dls.n_inp = 2
        cbs = [FreezeSchedule(), LatentLoss(), Watch(), *cbs]
        return inpaint_learner(dls, tiny_lama(control="mask", depth=1), metrics=[], cbs=cbs, lr=1e-2)
    return make


def batch(n, seed, size=32):
    g = torch.Generator().manual_seed(seed)
    image, mask = torch.rand(n, 3, size, size, generator=g), torch.zeros(n, 1, size, size)
    mask[..., 8:20, 8:20] = 1
    return image*(1 - mask), mask, image, mask


@pytest.fixture
def fresh():
    "Nothing compiled by another test"
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


needs_compiler = pytest.mark.skipif(not compiler(), reason="torch.compile needs a C++ compiler, such as g++")


@needs_compiler
@pytest.mark.usefixtures("fresh")
def test_steps_are_the_same_and_compiled_once(learner):
    plain, learn = learner(), learner(Compiled())
    plain.fit(2)
    assert plain.watch.graphs == [0, 0]
    learn.fit(2)
    assert learn.watch.losses == pytest.approx(plain.watch.losses, abs=1e-4)
    first, second = learn.watch.graphs
    assert first == second > 0
    assert learn.model.state_dict().keys() == plain.model.state_dict().keys()
    assert not any(m._compiled_call_impl for m in learn.model.modules())


@needs_compiler
def test_a_compiled_run_resumes_to_the_bit(tiny_learner, tmp_path, resumes_to_the_bit):
    def run(name, resume=False):
        cbs = FreezeSchedule(), LatentLoss(), Compiled(), Checkpoint(tmp_path/name, resume)
        return tiny_learner(*cbs, control="mask", depth=1)
    resumes_to_the_bit(run)


class Gradients(Callback):
    "The gradients of each step when the backward pass has ended; kept, so that nothing else lies there"
    order = Compiled.order - 1
    def __init__(self): self.found = []
    def before_step(self): self.found.append(gradients(self.model))


def gradients(model): return [p.grad for p in model.parameters() if p.grad is not None]


def test_gradients_leave_the_memory_of_graphs_once(learner, monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", lambda *args, **kwargs: None)
    learn = learner(Compiled(), Gradients())
    learn.fit(1)
    first, *later = learn.gradients.found
    kept = gradients(learn.model)
    assert first and not {o.data_ptr() for o in first} & {o.data_ptr() for o in kept}
    assert all(a is b for found in later for a, b in zip(found, kept, strict=True))


def test_what_is_compiled_at_once(tiny_lama):
    net = tiny_lama(blocks=3, delta=True)
    assert regions(net.encoder) == [*net.encoder.stages] and regions(net.refiner) == [*net.refiner.blocks]
    assert regions(net.decoder) == [*net.decoder.stages, net.decoder.head]
    assert regions(fcf(width=2, depth=2).refiner) and regions(nn.Identity()) == []


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="needs a C.. compiler: install g"): Compiled()
