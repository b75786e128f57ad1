"Runs of recipes in several processes: files, restarts"
import csv
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from fastai.callback.core import Callback
from safetensors.torch import load_file

from fastinpaint.core.errors import InputError
from fastinpaint.core.ranks import rank, restarted
from fastinpaint.models.lama import lama
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.run import check_settings, train_recipe
from fastinpaint.train.settings import LatentSettings

TINY = dict(size=32, bs=2, epochs=3, steps=6, width=2, blocks=1, device="cpu", workers=0, valid=".4",
            autoencoder="none", ema=.5)


class Killed(Callback):
    "One of the processes is killed in the second epoch of its first life"
    order = 5
    def __init__(self, epoch=1): self.at = epoch, 1

    def after_loss(self):
        if self.training and rank() == 1 and not restarted() and (self.epoch, self.iter) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def train(photos, out, cbs=(), **kwargs):
    settings = LatentSettings(**(TINY | dict(data=str(photos), out=str(out)) | kwargs))
    method = [FreezeSchedule(decoder=(0, .5)), LatentLoss(), *cbs]
    learn = train_recipe("mine", settings, partial(lama, control="mask"), method)
    return learn.model.state_dict()


def table(folder):
    "What a run's table says, except how long it took"
    rows = csv.DictReader((folder/"mine/metrics.csv").open())
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in rows]


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_torchrun import Killed, train
train({photos!r}, {out!r}, [Killed()])
"""


def test_a_killed_process_ends_the_others_and_a_restart_ends_with_the_bits_of_a_whole_run(
        photos, tmp_path, processes, same):
    whole, run = tmp_path/"whole", tmp_path/"run"
    processes(2, train, photos, whole)
    script = tmp_path/"recipe.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), photos=str(photos), out=str(run)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
               "--max-restarts", "1", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"})
    assert not done.returncode and "exitcode: -9" in done.stderr, done.stderr
    assert same(*(load_file(folder/"mine/model.safetensors") for folder in (run, whole)))
    assert table(run) == table(whole) and len(table(run)) == 3


def test_the_main_process_alone_writes_and_prints(photos, tmp_path, processes, same, capfd):
    states = processes(2, train, photos, tmp_path)
    out = capfd.readouterr().out
    assert out.count("2 processes with batches of 2: 4 photographs a step") == out.count("the model  ") == 1
    assert all(same(state, load_file(tmp_path/"mine/model.safetensors")) for state in states)
    assert {p.name for p in (tmp_path/"mine").iterdir()} == {
        "model.safetensors", "model.json", "metrics.csv", "step.json", "results.png", "settings.json",
        "checkpoint.pt", ".lock"}
    assert json.loads((tmp_path/"mine/settings.json").read_text())["processes"] == 2


def test_a_checkpoint_of_an_earlier_run_is_not_gone_on_with_after_a_restart(photos, tmp_path, processes):
    def short(life):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = life
        return train(photos, tmp_path, epochs=1, steps=2, overwrite=True)
    processes(2, short, "0")
    checkpoint, begun = (tmp_path/"mine"/name for name in ("checkpoint.pt", "settings.json"))
    os.utime(checkpoint, ns=(begun.stat().st_mtime_ns - 1,)*2)
    processes(2, short, "1")
    assert checkpoint.stat().st_mtime_ns > begun.stat().st_mtime_ns  # it was trained anew
    before = checkpoint.stat().st_mtime_ns
    processes(2, short, "1")
    assert checkpoint.stat().st_mtime_ns == before  # it was complete


@pytest.mark.parametrize("now, error", [(dict(bs=8), None), (dict(bs=4, processes=4), None),
                                        (dict(bs=3, processes=4), "bs=4, now 3")])
def test_a_run_is_resumed_with_its_batch_or_with_that_of_each_process(tmp_path, now, error):
    (tmp_path/"settings.json").write_text(json.dumps(dict(bs=4, processes=2)))
    if error is None: return check_settings(tmp_path/"settings.json", now)
    with pytest.raises(InputError, match=error): check_settings(tmp_path/"settings.json", now)
