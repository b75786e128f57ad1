"What is known of a model file"
import hashlib
import json

from .load import model_file, read_model


def about_model(model):
    """The file of `model`, its bytes and SHA-256, the model's arguments, and parameters by part.

    And the settings of its training where a settings.json is beside it. Errors are those of `read_model`.
    """
    path = model_file(model)
    net = read_model(path)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    about = dict(file=str(path), bytes=path.stat().st_size,
                 sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                 model=net.config, parameters=dict(all=sum(parts.values()), **parts))
    settings = path.with_name("settings.json")
    if settings.is_file(): about["settings"] = json.loads(settings.read_text())
    return about
