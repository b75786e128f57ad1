"Filling and tasks on a cluster of two nodes, some of whose workers are killed"
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from fastinpaint.core.errors import InputError, MissingPackage
from fastinpaint.fill.folder import fill_folder
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.fill.jobs import Job

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def engine():
    "`fastinpaint.serve.ray`, connected to two nodes of one CPU each, with little memory for objects"
    from ray.cluster_utils import Cluster

    from fastinpaint.serve import ray as engine
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    node = dict(num_cpus=1, object_store_memory=80*2**20)
    cluster = Cluster(initialize_head=True, head_node_args=dict(node, include_dashboard=False))
    cluster.add_node(**node)
    ray.init(cluster.address, logging_level="error")
    yield engine
    ray.shutdown()
    cluster.shutdown()


def files(folder):
    return {str(o.relative_to(folder)): o.read_bytes() for o in Path(folder).rglob("*") if o.is_file()}


def actors():
    return [o for o in psutil.Process().children(recursive=True) if o.name().startswith("ray::MapWorker")]


class Deadly(Inpainter):
    "Killed by photographs that are 9 pixels wide"
    def predict(self, works):
        if works[0].size[1] == 9: os.kill(os.getpid(), signal.SIGKILL)
        super().predict(works)


def test_results_and_report_are_this_machines_and_who_kills_workers_takes_no_other_along(engine, folders,
                                                                                         tmp_path):
    for i in range(8):
        shutil.copy(folders["images"]/"0.png", folders["images"]/f"0{i}.png")
        shutil.copy(folders["masks"]/"0.gif", folders["masks"]/f"0{i}.gif")
    (folders["images"]/"2.png").write_text("text")
    local = fill_folder(**folders, report=tmp_path/"local.parquet")
    deadly, mask = folders["images"]/"9.png", Image.new("1", (9, 10))
    mask.paste(1, (2, 2, 4, 4))
    mask.save(folders["masks"]/"9.gif")
    Image.new("RGB", (9, 10)).save(deadly)

    def deadly_engine(jobs, load, options):
        return engine.fill_by_actors(jobs, partial(Deadly, folders["model"], "cpu"), options, 2)

    seen, given = [], dict(folders, out=tmp_path/"ray", report=tmp_path/"ray.parquet")
    result = fill_folder(**given, engine=deadly_engine, progress=lambda o, total: map(noted(seen), o))
    assert len(seen) == len({o.out for o in seen}) == 17
    assert result.failed.pop(str(deadly)) == engine.KILLED and result == local
    assert files(tmp_path/"ray") == files(folders["out"])
    there, here = (pd.read_parquet(tmp_path/f"{name}.parquet").sort_values("image", ignore_index=True)
                   for name in ("ray", "local"))
    there = there[there["image"] != str(deadly)]
    assert all(o.startswith(str(tmp_path/"ray")) for o in there["out"])
    for name in "image", "status", "strategy", "error": assert [*there[name]] == [*here[name]]


def noted(seen):
    def note(outcome):
        seen.append(outcome)
        return outcome
    return note


def test_ctrl_c_leaves_a_report_and_ends_actors(engine, folders, tmp_path):
    def interrupting(outcomes, total):
        yield next(outcomes)
        running.extend(set(actors()) - before)
        raise KeyboardInterrupt

    running, before = [], set(actors())
    with pytest.raises(KeyboardInterrupt):
        fill_folder(**folders, report=tmp_path/"report.csv", engine=engine.filling(1), progress=interrupting)
    assert len((tmp_path/"report.csv").read_text().splitlines()) == 2
    assert running and not psutil.wait_procs(running, 30)[1]


def test_a_model_that_is_none_ends_the_run(engine, folders, monkeypatch):
    def in_this_process(jobs, actor, args, workers, each):
        batch = {name: np.array([getattr(job, name) for job in jobs.values()]) for name in Job._fields}
        said = actor(*args, engine._tries())(batch | dict(number=np.array([*jobs])))
        for values in zip(*said.values(), strict=True): yield dict(zip(said, values, strict=True))

    monkeypatch.setattr(engine, "_answers", in_this_process)
    with pytest.raises(InputError, match="none.safetensors"):
        fill_folder(**folders | dict(model="none.safetensors"), engine=engine.filling(1))
    assert fill_folder(**folders, engine=engine.filling(1)).filled == 8


def test_a_bug_is_no_failure_of_one_photograph(engine, folders, monkeypatch):
    monkeypatch.setattr(engine, "_answers", lambda *_: (row for row in ()))  # all actors killed
    with pytest.raises(TypeError, match="blend"):
        fill_folder(**folders, engine=engine.filling(1), blend=True)
    assert fill_folder(**folders, engine=engine.filling(1)).filled == 8


# tasks

def halved(number, folder):
    "Half of an even number; killed once by 4"
    if number == 4 and not (folder/"4").exists():
        (folder/"4").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if number % 2: raise InputError(f"{number} is odd")
    (folder/"done").open("a").write(f"{number} ")
    return number//2, os.getcwd(), os.environ.get("FASTINPAINT_SIZE")


def test_tasks_are_a_map_in_the_same_folder_with_the_same_settings(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTINPAINT_SIZE", "3")
    found = engine.spread(halved, [2, 4, 6], [tmp_path]*3)
    assert found == [(i, str(tmp_path), "3") for i in (1, 2, 3)]
    with pytest.raises(InputError, match="^7 is odd$"): engine.spread(halved, [7, 8], [tmp_path]*2)
    assert "8" in (tmp_path/"done").read_text()  # what one has failed, others have finished


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "fastinpaint.serve.ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install 'fastinpaint\[ray\]'"):
        from fastinpaint.serve.ray import filling  # noqa: F401
