"Photographs on disk: whole, cut short, in a folder"
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photo():
    "Saves a picture of four plain quarters, or of one colour, and returns its path"
    def save(fn, w=48, h=40, color=None, **kwargs):
        fn.parent.mkdir(parents=True, exist_ok=True)
        a = np.full((h, w, 3), color or 0, np.uint8)
        if color is None: a[:h//2, :w//2, 0] = a[h//2:, w//2:, 1] = a[:h//2, w//2:, 2] = 200
        Image.fromarray(a).save(fn, **kwargs)
        return fn
    return save


@pytest.fixture
def folder(tmp_path, photo):
    "Ten photographs, each of a colour of its own"
    for i in range(10): photo(tmp_path/"photos"/f"{i}.png", color=(20*i, 100, 250 - 20*i))
    return tmp_path/"photos"


@pytest.fixture
def truncated():
    "Saves a JPEG whose header is sound and whose second half is missing, and returns its path"
    def save(fn, w=400, h=400):
        pixels = np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(fn)
        fn.write_bytes(fn.read_bytes()[:fn.stat().st_size//2])
        return fn
    return save
