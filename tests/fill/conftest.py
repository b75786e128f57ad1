import shutil

import numpy as np
import pytest
from PIL import Image

from fastinpaint.models.load import save_model


@pytest.fixture
def folders(photos, tmp_path, tiny_lama):
    "Photographs in two folders and their masks; a model"
    def paths(name): return tmp_path/"photos"/f"{'deep/' if int(name) % 2 else ''}{name}.png"
    mask = np.zeros((40, 48), bool)
    mask[10:20, 10:30] = True
    (tmp_path/"masks").mkdir()
    for fn in photos.iterdir():
        paths(fn.stem).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(fn, paths(fn.stem))
        Image.fromarray(mask).save(tmp_path/"masks"/f"{fn.stem}.gif")
    return dict(images=tmp_path/"photos", masks=tmp_path/"masks", out=tmp_path/"filled", device="cpu",
                model=str(save_model(tiny_lama(), tmp_path/"model.safetensors")))
