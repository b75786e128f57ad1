"What a run of a recipe is made with"
from dataclasses import dataclass

from ..core.settings import flag, setting


@dataclass(kw_only=True)
class Settings:
    "Settings of a run; a recipe with flags or defaults of its own takes a subclass"
    data: str = setting("sample", "Photographs: a folder, or sample, pets, imagenette")
    masks: str = setting("train", "Holes: train, thin, medium, thick, center, outpaint, folder, pool:FOLDER")
    invert: bool = flag(False, "In mask files, 0 or black is the hole")
    valid: str = setting("", "Validation: a folder or a fraction; else valid/ in the data, or 0.1")
    augment: bool = flag(True, "Turn, warp and recolour training photographs")
    size: int = setting(128, "Side of the square crops in pixels")
    bs: int = setting(8, "Batch size")
    epochs: int = setting(5, "Epochs, each ending in a validation")
    steps: int = setting(2500, "Training steps in all; 0: an epoch is one pass through the data")
    lr: float = setting(3e-3, "Highest learning rate of the one-cycle schedule")
    seed: int = setting(42, "Of everything random; a CPU run repeats to the bit")
    width: int = setting(8, "Channels of the first stage (published LaMa: 64)")
    blocks: int = setting(9, "Residual blocks of the refiner")
    plain: bool = flag(False, "LaMa's published layers, without linear paths")
    prefill: bool = flag(True, "Fill holes smoothly before the encoder sees them")
    autoencoder: str = setting("sample", "Where encoder and decoder start: sample, a file, or none")
    out: str = setting("runs", "Folder of runs; this one goes to OUT/RECIPE")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps …")
    bf16: bool = flag(False, "bfloat16 autocast")
    ema: float = flag(0., "Decay of the weights' moving average, judged and saved instead; 0: none")
    workers: int = setting(-1, "Data loading processes; -1 chooses")
    wandb: str = setting("disabled", "W&B: disabled, offline, online, auto (online if logged in)")
    project: str = setting("fastinpaint", "W&B project")
    log_model: bool = flag(False, "Upload the weights to W&B at the end")
    resume: bool = flag(False, "Go on with the interrupted run in OUT/RECIPE")


@dataclass(kw_only=True)
class AdversarialSettings(Settings):
    "Settings of the recipes that train with all of LaMa's losses"
    perceptual: str = flag("auto", "Perceptual network: auto, imagenet, vgg, none, a file of ADE20K weights")
    r1_every: int = flag(1, "Steps between two R1 penalties")
    lr_d: float = flag(1e-4, "Learning rate of the discriminator")
    lr: float = flag(1e-3, "Highest learning rate of the one-cycle schedule")
