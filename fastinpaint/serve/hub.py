"Gives `InpaintNet` methods for the Hugging Face Hub, where models are safetensors with a card"
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from fastcore.basics import patch

from ..core.download import unreachable
from ..core.errors import InputError, MissingFile, Unreachable
from ..models.load import load_model
from ..models.net import InpaintNet
from ..models.weights import write_weights

FILE = "model.safetensors"
CARD = """---
library_name: fastinpaint
pipeline_tag: image-to-image
tags: [image-inpainting, fastinpaint]
---

# An inpainting model of fastinpaint

It fills the holes of photographs, of any size. `{parameters:,}` parameters; made as

```json
{config}
```

```python
from fastinpaint.all import *

model = InpaintNet.from_pretrained("user/model")   # the name of this repository
Inpainter(model)("photo.jpg", "mask.png").save("filled.png")   # white is the hole
```
"""


@patch
def save_pretrained(self: InpaintNet, folder):
    "Write `model.safetensors`, `config.json`, and a card if there is none, to `folder`"
    folder = Path(folder)
    file = write_weights(folder/FILE, self.state_dict(), self.config)
    file.with_suffix(".json").replace(folder/"config.json")
    if (card := folder/"README.md").exists(): return
    parameters, config = sum(p.numel() for p in self.parameters()), json.dumps(self.config, indent=1)
    card.write_text(CARD.format(parameters=parameters, config=config), encoding="utf-8")


@patch
def push_to_hub(self: InpaintNet, repo, private=None, token=None, **kwargs):
    "Upload to `repo`, made if it is new, `kwargs` as for `HfApi.upload_folder`; returns the commit"
    from huggingface_hub import HfApi, constants  # takes a quarter of a second
    if why := unreachable(constants.ENDPOINT):
        raise Unreachable(f"no {constants.ENDPOINT} ({why}); save_pretrained writes the same to a folder")
    api = HfApi(token=token)
    repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
    with TemporaryDirectory() as folder:
        self.save_pretrained(folder)
        return api.upload_folder(repo_id=repo, folder_path=folder, **kwargs)


@patch(cls_method=True)
def from_pretrained(cls: InpaintNet, repo, local_files_only=False, **kwargs):
    """The model in `repo` ("user/name", or a folder of `save_pretrained`), in eval mode.

    `kwargs` (`revision` …) as for `hf_hub_download`. Raises, within seconds, Unreachable where the Hub
    is and no copy is here, MissingFile for no model, InputError for none of this package."""
    if Path(repo).is_dir(): return load_model(Path(repo)/FILE)
    from huggingface_hub import constants, errors, hf_hub_download
    why = None if local_files_only else unreachable(constants.ENDPOINT)
    try: file = hf_hub_download(repo, FILE, local_files_only=local_files_only or bool(why), **kwargs)
    except errors.HFValidationError as e:
        raise InputError(f"{repo} is neither a folder nor a repository: {e}") from e
    except errors.LocalEntryNotFoundError as e:
        raise Unreachable(f"{repo} has not been downloaded before, and {constants.ENDPOINT} is out of reach "
                          f"({why or 'local files only'}): give a folder that save_pretrained wrote") from e
    except (errors.EntryNotFoundError, errors.HfHubHTTPError) as e:
        raise MissingFile(f"no model {repo} with a {FILE} on {constants.ENDPOINT}, "
                          "or no right to read it; for a private one: hf auth login") from e
    return load_model(file)
