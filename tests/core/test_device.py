from types import SimpleNamespace

import psutil
import pytest
import torch

from fastinpaint.core import device
from fastinpaint.core.device import choose_device, evaluating, memory_at_hand
from fastinpaint.core.errors import InputError

CPU = torch.device("cpu")


def test_devices_by_name():
    assert choose_device("cpu") == CPU and choose_device("auto").type in ("cpu", "cuda", "mps")
    for name in "abacus", "gpu", "banana", "meta", "cpu:x", "":
        with pytest.raises(InputError, match=f"--device {name}: .* auto, cpu, cuda"): choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(InputError, match="--device cuda:1: this torch sees no GPU"): choose_device("cuda:1")


def test_evaluating_leaves_a_model_with_frozen_parts_as_it_was():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)).train()
    model[1].eval().requires_grad_(False)
    with pytest.raises(KeyError), evaluating(model) as same:
        assert same is model and not any(m.training for m in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        raise KeyError
    assert [m.training for m in model.modules()] == [True, True, False]
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, False]


@pytest.fixture
def limited(tmp_path, monkeypatch):
    "Sets the memory that the system has, and what the files of a container's limit say"
    def limit(available, *texts):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
        for i, text in enumerate(texts): (tmp_path/str(i)).write_text(f"{text}\n")
        monkeypatch.setattr(device, "CGROUP_LIMITS", [tmp_path/str(i) for i in range(3)])
    return limit


@pytest.mark.parametrize("texts", [(), ("max",), (2**63 - 4096,), (2**50, "max")], ids=str)
def test_memory_is_what_the_system_has_available(limited, texts):
    limited(10**9, *texts)
    assert memory_at_hand(CPU) == 10**9


@pytest.mark.parametrize("texts", [(2**40,), ("max", 2**40), (2**40, 2**50)], ids=str)
def test_a_container_takes_its_limit_less_what_the_process_uses(limited, texts):
    limited(2**45, *texts)
    used = 2**40 - memory_at_hand(CPU)
    assert used == pytest.approx(psutil.Process().memory_info().rss, rel=.2)


def test_no_memory_is_left_in_a_container_that_is_full(limited):
    limited(2**45, 1000)
    assert memory_at_hand(CPU) == 0


@pytest.mark.parametrize("local, gpus, expected", [(1, 4, "cuda:1"), (0, 1, "2 processes .* has 1 GPU")])
def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch, local, gpus, expected):
    launched = dict(RANK=local, WORLD_SIZE=2, LOCAL_RANK=local, LOCAL_WORLD_SIZE=2, MASTER_ADDR="here",
                    MASTER_PORT=1)
    for k, v in launched.items(): monkeypatch.setenv(k, str(v))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name in "auto", "cuda":
        if gpus > 1: assert str(choose_device(name)) == expected
        else:
            with pytest.raises(InputError, match=expected): choose_device(name)
    assert choose_device("cpu").type == "cpu"
