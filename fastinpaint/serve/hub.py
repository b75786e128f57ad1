"Models on the Hugging Face Hub: pushed and pulled as safetensors, with a card"
import json
from pathlib import Path

from huggingface_hub import ModelCard, ModelHubMixin, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from ..core.download import unreachable
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


class OnHub(ModelHubMixin):
    """What gives a network `push_to_hub(repo)`, `from_pretrained(repo)` and `save_pretrained(folder)`.

    A repository holds `model.safetensors`, as `save_model` writes it, `config.json` and a card; nothing else is ever read.
    """
    @classmethod
    def from_pretrained(cls, repo, **kwargs):
        """The model in `repo`, a repository's "user/name" or a folder of `save_pretrained`, in eval mode; see huggingface_hub.

        Raises within seconds: ConnectionError where the Hub cannot be reached and the model has not been downloaded before,
        FileNotFoundError where there is no such model, ValueError where it is none of this package.
        """
        if Path(repo).is_dir(): return super().from_pretrained(repo, **kwargs)
        why = None if kwargs.get("local_files_only") else unreachable(constants.ENDPOINT, 1)
        if why: kwargs["local_files_only"] = True
        try: return super().from_pretrained(repo, **kwargs)
        except LocalEntryNotFoundError as e:
            raise ConnectionError(f"{repo} has not been downloaded before, and {constants.ENDPOINT} cannot be reached"
                                  f"{f' ({why})' if why else ''}; connect, or give a folder that save_pretrained wrote") from e
        except (EntryNotFoundError, HfHubHTTPError) as e:
            raise FileNotFoundError(f"no model {repo} with a {FILE} on {constants.ENDPOINT}, or no right to read it; for a "
                                    "private one: hf auth login") from e

    @classmethod
    def _from_pretrained(cls, *, model_id, revision=None, cache_dir=None, force_download=False, local_files_only=False,
                         token=None, **_):
        from ..models.load import load_model
        if Path(model_id).is_dir(): return load_model(Path(model_id)/FILE)
        return load_model(hf_hub_download(model_id, FILE, revision=revision, cache_dir=cache_dir, force_download=force_download,
                                          local_files_only=local_files_only, token=token))

    def push_to_hub(self, repo, **kwargs):
        "Upload the model to `repo`, made if it is new, and return the commit's address. ConnectionError where there is no Hub."
        if why := unreachable(constants.ENDPOINT, 1):
            raise ConnectionError(f"{constants.ENDPOINT} cannot be reached ({why}); "
                                  "save_pretrained writes the same files to a folder")
        return super().push_to_hub(repo, **kwargs)

    def _save_pretrained(self, folder):
        write_weights(folder/FILE, self.state_dict(), self.config)
        (folder/FILE).with_suffix(".json").replace(folder/"config.json")

    def generate_model_card(self, **_):
        parameters = sum(p.numel() for p in self.parameters())
        return ModelCard(CARD.format(parameters=parameters, config=json.dumps(self.config, indent=1)))
