import os
import pickle
import random
import shutil
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from fastai.torch_core import set_seed
from PIL import Image

from fastinpaint.core.errors import InputError, MissingFile
from fastinpaint.data import shards as module
from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.data.photos import Skipped
from fastinpaint.data.remote import Remote
from fastinpaint.data.shard_index import read_shards
from fastinpaint.data.shard_writer import write_shards
from fastinpaint.judge.protocol import holes, judged_photos

load = partial(InpaintDataLoaders.from_folder, size=32, bs=4, num_workers=0, device="cpu", augment=False)
workers = pytest.mark.parametrize("num_workers", [0, 2])


def same(a, b):
    return all(torch.equal(x, y) for u, v in zip(a, b, strict=True) for x, y in zip(u, v, strict=True))


def images_of(dl, names):
    "Name → image and hole, of a loader that does not shuffle"
    pairs = [o for _, mask, image, _ in dl for o in zip(image, mask, strict=True)]
    return dict(zip(names, pairs, strict=True))


# photographs and their names

def test_a_photograph_is_one_range_of_one_file(shards):
    found, log = read_shards(shards.root), Skipped()
    assert len(found) == 24 and found[0] == f"{shards.root}/000000.tar/{found[0].name}"
    for o in found[3:20]:
        assert o.open(log).read() == (shards.root.parent/"photos"/o.name).read_bytes()
        assert found.index(o) == list(found).index(o)
    with pytest.raises(ValueError): found[:3].index(found[5])


# batches

@pytest.mark.parametrize("remote", [False, True])
def test_train_and_valid_are_kept_and_validation_is_that_of_the_folder(served, photo, tmp_path, remote):
    for i in range(12): photo(tmp_path/"set"/("train" if i % 3 else "valid")/f"{i % 2}/{i}.png", color=(i,)*3)
    write_shards(tmp_path/"set", served.root, count=3)
    of_folder, of_shards = load(tmp_path/"set"), load(served.url if remote else served.root)
    assert [len(o) for o in (of_shards.train_ds, of_shards.valid_ds)] == [8, 4]
    expected = images_of(of_folder.valid, [os.path.relpath(o, tmp_path/"set/valid")
                                           for o in of_folder.valid_ds.items])
    found = images_of(of_shards.valid, [o.name for o in of_shards.valid_ds.items])
    assert found.keys() == expected.keys() and all(same([found[k]], [expected[k]]) for k in found)
    # an evaluation is the same to the bit, and in the same order
    judged = judged_photos(served.url if remote else served.root)
    for a, b in zip(*(holes(o, size=32, limit=3) for o in (tmp_path/"set/valid", judged)), strict=True):
        assert (a.set, a.name) == (b.set, b.name)
        assert np.array_equal(a.image, b.image) and np.array_equal(a.hole, b.hole)


def test_an_epoch_has_every_photograph_once_shard_after_shard(shards):
    dl = load(shards.url, bs=2, valid=.25).train
    first, second = dl.get_idxs(), dl.get_idxs()
    assert sorted(first) == sorted(second) == list(range(18)) and first != second
    assert len({*dl.dataset.items, *load(shards.url, valid=.25).valid_ds.items}) == 24


@workers
def test_a_seed_repeats_a_run_and_two_integers_resume_it_to_the_bit(shards, num_workers):
    def build(): return load(shards.url, seed=3, num_workers=num_workers, steps=3, augment=True)
    set_seed(3)
    dls = build()
    first = list(dls.train)
    state = random.getstate(), np.random.get_state(), torch.get_rng_state(), dls.train.drawn
    second = list(dls.train)
    assert not same(first, second)
    set_seed(3)
    assert same(first, list(build().train))
    shutil.rmtree(shards.root.parent/"cache")
    dls = build()
    random.setstate(state[0]), np.random.set_state(state[1]), torch.set_rng_state(state[2])
    dls.train.drawn = state[3]
    assert same(second, list(dls.train))


def test_loaders_of_shards_survive_pickling(shards):
    dls = load(shards.url, valid=.25)
    assert same(list(pickle.loads(pickle.dumps(dls.valid))), list(dls.valid))


def test_masks_of_a_folder_belong_to_photographs_of_their_names(shards, photo, tmp_path):
    names = [o.name for o in read_shards(shards.root)]
    for o in names:
        path = photo(tmp_path/"masks"/o)
        Image.fromarray(np.eye(40, 48, dtype=bool)).save(path, "PNG")
    dls = load(shards.url, tmp_path/"masks")
    assert len(list(dls.valid)[0][0]) and not dls.skipped
    (tmp_path/"masks"/names[0]).unlink()
    with pytest.raises(InputError, match="1 of 24 photographs have no mask"):
        load(shards.url, tmp_path/"masks")
    photo(tmp_path/"masks"/names[0], 10, 10)
    with pytest.raises(InputError, match="a mask must have its photograph's size"):
        for dl in load(shards.url, tmp_path/"masks"): list(dl)


# failures

def trains_and_judges_all_but(dls, *missing):
    "In training, others take the places of the photographs of the shards `missing`"
    lost = sum(any(name in o for name in missing) for o in dls.valid_ds.items)
    assert sum(len(b[0]) for b in dls.train) == 18 and sum(len(b[0]) for b in dls.valid) == 6 - lost


@workers
@pytest.mark.parametrize("fault, reason", [
    ("500", "500"), ("404", "it is not there"), ("stall", "no answer"), ("short", "payload")])
def test_a_shard_that_cannot_be_had_is_named_once_and_training_goes_on(
        shards, capfd, num_workers, fault, reason):
    shards.faults["000003.tar"] = fault
    dls = load(shards.url, num_workers=num_workers, valid=.25, bs=2)
    for _ in range(2): trains_and_judges_all_but(dls, "000003.tar")
    url = f"{shards.url}/000003.tar"
    out = capfd.readouterr().out
    assert out.count(f"skipped {url}: ") == 1 and reason in out and "so are its 4 photographs" in out
    assert dls.skipped == [url] and shards.asked.count("000003.tar") == 3


def test_a_process_that_waited_for_a_shard_that_failed_does_not_ask_again(shards, monkeypatch):
    shards.faults["000003.tar"] = "500"
    found, known = read_shards(Remote(shards.url)), []

    @contextmanager
    def keeping(sha256):
        try: yield
        finally: known.append(float(found.failed[3]) > 0)

    monkeypatch.setattr(module, "keeping", keeping)
    assert found.read(int(found.firsts[3]), Skipped([])) is None and known == [True]


def test_it_is_asked_for_again_after_a_while(shards, monkeypatch):
    monkeypatch.setattr(module, "AGAIN", 0)
    shards.faults["000003.tar"] = ["500"]*3
    dls = load(shards.url, steps=6)
    assert sum(len(b[0]) for b in dls.train) == 24 and dls.skipped == [f"{shards.url}/000003.tar"]


def test_local_shards_that_are_cut_short_or_gone_are_skipped(shards, capfd):
    (shards.root/"000001.tar").unlink()
    (shards.root/"000002.tar").write_bytes((shards.root/"000002.tar").read_bytes()[:100])
    dls = load(shards.root, valid=.25, bs=2)
    trains_and_judges_all_but(dls, "000001.tar", "000002.tar")
    out = capfd.readouterr().out
    assert "000001.tar: it is not there" in out and "000002.tar: it is cut short: 100 bytes" in out


def test_without_any_shard_an_epoch_ends_with_an_error(shards):
    for i in range(6): shards.faults[f"{i:06}.tar"] = "500"
    with pytest.raises(InputError, match=f"none of the 6 shards of {shards.url} that were tried"):
        list(load(shards.url, steps=20).train)


def test_the_cache_keeps_to_its_limit_and_all_are_read(shards, monkeypatch, tmp_path):
    size = (shards.root/"000000.tar").stat().st_size
    monkeypatch.setenv("FASTINPAINT_CACHE_GB", f"{2.5*size/1e9:.12f}")
    with pytest.warns(UserWarning, match="6 shards of .*, are read at a time"):
        dls = load(shards.url, num_workers=2, valid=.25, bs=2)
    assert sum(len(b[0]) for b in dls.train) == 18 and not dls.skipped
    assert sum(o.stat().st_size for o in (tmp_path/"cache/shards").glob("*.tar")) <= 2.5*size


def test_the_next_shard_is_fetched_before_its_turn(shards):
    dl = load(shards.url).train
    dl.get_idxs()
    found = dl.dataset.items
    k = next(iter(found.after))
    row = int(found.firsts[k])
    assert found.read(row, Skipped()) is not None
    for _ in range(200):
        if f"{found.after[k]:06}.tar" in shards.asked: return
        shards.released.wait(.05)
    pytest.fail("it was not asked for")


# S3

@pytest.fixture
def bucket(shards, monkeypatch):
    "The shards in a bucket of a local S3, at s3://photos/set"
    moto = pytest.importorskip("moto.server")
    import boto3
    import s3fs
    for name, value in dict(ACCESS_KEY_ID="a", SECRET_ACCESS_KEY="b", DEFAULT_REGION="us-east-1").items():
        monkeypatch.setenv(f"AWS_{name}", value)
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    for o in shards.root.iterdir(): client.upload_file(str(o), "photos", f"set/{o.name}")
    s3fs.S3FileSystem.clear_instance_cache()
    yield client
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@workers
def test_shards_in_a_bucket_are_trained_on_and_what_is_missing_or_cut_short_is_skipped(
        shards, bucket, capfd, num_workers):
    assert same(*(list(load(o, seed=1).valid) for o in ("s3://photos/set", shards.url)))
    shutil.rmtree(shards.root.parent/"cache")
    bucket.delete_object(Bucket="photos", Key="set/000000.tar")
    bucket.put_object(Bucket="photos", Key="set/000001.tar", Body=b"short")
    dls = load("s3://photos/set", num_workers=num_workers, valid=.25, bs=2)
    trains_and_judges_all_but(dls, "000000.tar", "000001.tar")
    assert dls.skipped == ["s3://photos/set/000000.tar", "s3://photos/set/000001.tar"]
    assert "000001.tar: it is cut short: 5 bytes" in capfd.readouterr().out


def test_a_bucket_without_shards_is_told(bucket):
    with pytest.raises(MissingFile, match="no shards at s3://photos/other"): load("s3://photos/other")


def test_photographs_that_break_off_are_named_as_in_a_folder(served, folder, truncated, capfd):
    write_shards(folder, served.root, count=4)
    found = read_shards(served.root)
    # spoilt after it was written, within its shard
    path, start = served.root/found.shards[0][0], int(found.starts[1])
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(int(found.lengths[1])) + data[start + int(found.lengths[1]):])
    dls = load(served.root, steps=6)
    list(dls.train), list(dls.valid)
    assert dls.skipped == [str(found[1])] and "not an image that Pillow can read" in capfd.readouterr().out
    assert Image.open(found[2].open(Skipped())).size == (48, 40)
