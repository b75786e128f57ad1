from functools import partial

import pytest

from fastinpaint.core.errors import InputError, MissingFile
from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.data.named import named_data
from fastinpaint.data.photos import find_images
from fastinpaint.data.remote import Remote
from fastinpaint.data.shard_index import file_at, find_photos, read_shards

load = partial(InpaintDataLoaders.from_folder, size=32, bs=4, num_workers=0, device="cpu")


def test_folders_and_addresses_are_told_apart(shards):
    assert type(find_photos(shards.root)) is type(find_photos(shards.url)) is type(read_shards(shards.root))
    assert list(find_photos(shards.root.parent/"photos")) == list(find_images(shards.root.parent/"photos"))
    assert named_data(shards.url) == shards.url and isinstance(named_data(shards.url), Remote)
    with pytest.raises(InputError, match=f"{shards.root} holds shards"): find_images(shards.root)


def test_what_is_no_set_of_shards_is_told(shards):
    with pytest.raises(MissingFile, match=f"no shards at {shards.url}/nowhere: expected a file index.jsonl"):
        load(f"{shards.url}/nowhere")
    (shards.root/"index.jsonl").write_text('{"format": "another"}\n')
    with pytest.raises(InputError, match="is no index as `fastinpaint shard` writes it"): load(shards.url)
    (shards.root/"index.jsonl").write_text('{"format": "fastinpaint shards 1"}\n')
    with pytest.raises(InputError, match="is no index|no photographs"): load(shards.root)


def test_a_path_leads_to_a_file_or_into_a_shard_here_or_afar(shards):
    photos = find_images(shards.root.parent/"photos")
    assert file_at(photos[0]) == photos[0]
    for root in shards.root, shards.url:
        member = find_photos(root)[5]
        assert file_at(str(member)).read() == (shards.root.parent/"photos"/member.name).read_bytes()
    with pytest.raises(FileNotFoundError, match="000001.tar has no none.png"):
        file_at(f"{shards.root}/000001.tar/none.png")
    (shards.root/"a.tar").mkdir()
    assert file_at(shards.root/"a.tar/b.png") == shards.root/"a.tar/b.png"


def test_photographs_of_one_shard_tell_why_it_cannot_be_had(shards):
    shards.faults["000001.tar"] = "404"
    paths = [str(o) for o in find_photos(shards.url) if "000001.tar" in o]
    with pytest.raises(OSError, match="000001.tar: it is not there"): file_at(paths[0])
    asked = len(shards.asked)
    with pytest.raises(OSError, match="its shard could not be had"): file_at(paths[1])
    assert len(shards.asked) == asked
