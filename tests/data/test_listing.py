import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastinpaint.data import listing
from fastinpaint.data.listing import Joined, Names, listed

PARTS = st.text("ab-./0é", min_size=1, max_size=3).filter(lambda o: o[0] != "." and "/" not in o)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    "Ten files in nested folders of some age, and an empty cache that even they are worth"
    monkeypatch.setenv("FASTINPAINT_CACHE", str(tmp_path/"cache"))
    monkeypatch.setattr(listing, "CACHED_FROM", 5)
    for i in range(10):
        file = tmp_path/"tree"/f"{i % 3}/deep"/f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    age(tmp_path/"tree")
    return tmp_path/"tree"


def age(tree, seconds=100):
    for root, *_ in os.walk(tree):
        then = os.stat(root).st_mtime - seconds
        os.utime(root, (then, then))


def names(tree): return [os.path.relpath(o, tree) for o in listed(tree, {".jpg"})[0]]


@given(st.sets(st.lists(PARTS, min_size=1, max_size=3).map("/".join), max_size=12))
def test_paths_are_sorted_as_whole_strings(tmp_path_factory, found):
    tree = tmp_path_factory.mktemp("tree")
    for o in found:
        try: (tree/o).parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError): continue
        if not (tree/o).exists(): (tree/f"{o}.jpg").touch()
    there = [os.path.join(root, o) for root, _, files in os.walk(tree) for o in files]
    assert list(listed(tree, {".jpg"})[0]) == sorted(there)


def test_hidden_files_others_and_folders_behind_links_are_left_out(tree):
    for o in ("0/.a.jpg", ".b/a.jpg", "0/a.txt"):
        (tree/o).parent.mkdir(exist_ok=True)
        (tree/o).touch()
    (tree/"link").symlink_to(tree/"0")
    (tree/"file.JPG").symlink_to(tree/"0/deep/0.jpg")
    files, others = listed(tree, {".jpg"})
    assert len(files) == 11 and others == 1 and files[-1] == str(tree/"file.JPG")


def test_a_second_listing_opens_no_folder(tree, monkeypatch):
    first = names(tree)
    monkeypatch.setattr(os, "scandir", lambda *_: pytest.fail("a folder was listed"))
    assert names(tree) == first
    assert listed(tree, {".jpg"})[1] == 0


@pytest.mark.parametrize("change", [
    lambda tree: (tree/"1/deep/new.jpg").touch(), lambda tree: (tree/"1/deep/1.jpg").unlink(),
    lambda tree: (tree/"1/deep").rename(tree/"1/other"), lambda tree: (tree/"1/more").mkdir()])
def test_it_is_listed_anew_after_any_folder_has_changed(tree, change):
    names(tree)
    change(tree)
    expected = sorted(os.path.relpath(os.path.join(root, o), tree) for root, _, files in os.walk(tree)
                      for o in files)
    assert names(tree) == expected


def test_a_folder_that_has_just_changed_is_not_kept(tree):
    age(tree/"2", -100)  # a second change of the same moment would not show
    names(tree)
    assert not list(listing.cache_folder().rglob("*.npz"))


def test_a_spoilt_cache_and_a_disk_without_room_do_no_harm(tree, monkeypatch):
    first = names(tree)
    file, = listing.cache_folder().rglob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert names(tree) == first
    file.unlink()
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError("no room")))
    assert names(tree) == first


def test_few_files_are_not_worth_a_cache(tree, monkeypatch):
    monkeypatch.setattr(listing, "CACHED_FROM", 11)
    names(tree)
    assert not listing.cache_folder().exists()


def test_a_long_listing_says_so_in_one_line(tree, monkeypatch, capfd):
    names(tree)
    assert not capfd.readouterr().err
    (tree/"new.jpg").touch()
    monkeypatch.setattr(listing, "PATIENCE", -1)
    names(tree)
    err = capfd.readouterr().err
    assert err.endswith(f"listing {tree}: 11 photographs\n") and err.count("\n") == 1


def test_names_take_little_memory_and_any_index():
    words = [f"class/{i:05}.jpg" for i in range(20_000)]
    text = "".join(words).encode()
    o = Names(text, np.cumsum([*map(len, words)]))
    assert list(o) == words and o[-1] == words[-1] and o[np.int64(3)] == words[3]
    assert list(o[5:8]) == words[5:8] and list(o[np.array([9, 2])]) == [words[9], words[2]]
    assert list(o[[1, 2]][[1]]) == [words[2]] and len(o[[]]) == 0
    assert o.index(words[77]) == 77 and o[100:200].index(words[150]) == 50
    with pytest.raises(ValueError): o.index("class/x.jpg")
    with pytest.raises(IndexError): o[20_000]
    assert len(pickle.dumps(o))/len(o) < 16 + 9


def test_two_halves_are_sequences_of_their_own():
    o = Joined(["a", "b"], ["c"])
    assert list(o) == ["a", "b", "c"] and [o[i] for i in o.halves] == [["a", "b"], ["c"]]
