import time
from datetime import timedelta

import torch
from torch import distributed as dist

from fastinpaint.core import together
from fastinpaint.core.errors import InputError
from fastinpaint.core.ranks import rank

CPU = torch.device("cpu")


def test_alone_everything_stays_as_it_is():
    together.start(CPU)
    x = torch.rand(2, 3, requires_grad=True)
    assert not dist.is_initialized() and not together.mean(x).requires_grad
    assert torch.equal(together.mean(x), x) and torch.equal(together.gathered(x), x)
    assert together.total([1, torch.tensor(2)]) == [1., 2.] and together.of_main(lambda: "this") == "this"


def what_each_has(folder):
    together.start(CPU)
    mine = torch.full((1, 2), float(rank()))
    found = dict(mean=together.mean(mine), total=together.total([rank(), 1]), rows=together.gathered(mine),
                 main=together.of_main(lambda: f"of {rank()}"), training=together.batch_mean(mine))
    with torch.no_grad(): found["validation"] = together.batch_mean(mine).clone()
    found["mine"] = mine.clone()
    together.take_from_main([mine])
    with together.first_of_machine_first():
        if rank(): found["sees"] = (folder/"downloaded").is_file()
        else:
            time.sleep(.3)
            (folder/"downloaded").touch()
    together.total([1])  # the first process is where they meet: it must not end before the others
    return found | {"taken": mine}


def test_three_processes_share(processes, tmp_path):
    for i, found in enumerate(processes(3, what_each_has, tmp_path)):
        assert found["mean"].tolist() == found["training"].tolist() == [[1., 1.]]
        assert found["total"] == [3., 3.]
        assert found["rows"].tolist() == [[0., 0.], [1., 1.], [2., 2.]] and found["main"] == "of 0"
        assert found["validation"].tolist() == found["mine"].tolist() == [[i, i]]
        assert found["taken"].tolist() == [[0., 0.]] and found.get("sees", True)


def wait_for_the_first():
    together.TIMEOUT = timedelta(seconds=1)
    together.start(CPU)
    together.total([1])
    if not rank(): return time.sleep(3)
    try: together.total([1])
    except InputError as e: return str(e)


def test_who_waits_in_vain_says_so(processes):
    _, message = processes(2, wait_for_the_first)
    assert message.startswith("process 1 waits for the others in vain") and "0:00:01" in message
