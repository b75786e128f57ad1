"What a run of a recipe is made with"
from dataclasses import dataclass

from ..core.settings import flag, group, setting


def thesis_setting(**more):
    "The field of the thesis' setting (LaMa's, where the thesis says nothing), with `more` of a recipe's own"
    return group("The thesis' setting", plain=True, prefill=False, native=True, lr=1e-3, schedule="constant",
                 beta2=.999, clip=1., lpips="vgg", **more)


@dataclass(kw_only=True)
class Settings:
    "Settings of a run; a recipe with flags or defaults of its own takes a subclass"
    thesis: bool = thesis_setting()
    data: str = setting("sample", "Photographs: a folder, shards, their address, or a set such as sample")
    masks: str = setting("train", "Holes: train, thin, medium, thick, center, outpaint, folder, pool:FOLDER")
    invert: bool = flag(False, "In mask files, 0 or black is the hole")
    valid: str = setting("", "Validation: a folder or a fraction; else valid/ in the data, or 0.1")
    augment: bool = flag(True, "Turn, warp and recolour training photographs")
    native: bool = flag(False, "Train on crops of SIZE pixels as they are, not on resized larger squares")
    size: int = setting(128, "Side of the square crops in pixels")
    bs: int = setting(8, "Batch size of each process")
    epochs: int = setting(5, "Epochs, each ending in a validation")
    steps: int = setting(2500, "Training steps in all; 0: an epoch is one pass through the data")
    lr: float = setting(3e-3, "Learning rate, the highest of a schedule")
    schedule: str = flag("one_cycle", "Of the learning rate: one_cycle, or constant")
    beta2: float = flag(.99, "Adam's decay of squared gradients")
    clip: float = flag(0., "Largest norm of the gradients; 0: any")
    seed: int = setting(42, "Of everything random; a CPU run repeats to the bit")
    init: str = setting("", "A model to go on from: sample, a saved model, a LaMa checkpoint (.ckpt)")
    width: int = setting(8, "Channels of the first stage (published LaMa: 64)")
    blocks: int = setting(9, "Residual blocks of the refiner")
    plain: bool = flag(False, "LaMa's published layers, without linear paths")
    prefill: bool = flag(True, "Fill holes smoothly before the encoder sees them")
    refiner: str = flag("ffc", "Blocks of the refiner: ffc, dilated, unet")
    autoencoder: str = setting("sample", "Encoder, decoder: sample, a file, none, hf:NAME or hf:FOLDER")
    lpips: str = flag("alex", "Network of the metric LPIPS: alex or vgg")
    out: str = setting("runs", "Folder of runs; this one goes to OUT/RECIPE")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps …")
    bf16: bool = flag(False, "bfloat16 autocast")
    compile: bool = flag(False, "Train by torch.compile, part by part; meant for GPUs")
    ema: float = flag(0., "Decay of the weights' moving average, judged and saved instead; 0: none")
    sync_bn: bool = flag(False, "Of several processes on GPUs: BatchNorm over the batches of all")
    workers: int = setting(-1, "Data loading processes; -1 chooses")
    wandb: str = setting("disabled", "W&B: disabled, offline, online, auto (online if logged in)")
    project: str = setting("fastinpaint", "W&B project")
    log_model: bool = flag(False, "Upload the weights to W&B at the end")
    resume: bool = flag(False, "Go on with the interrupted run in OUT/RECIPE")
    overwrite: bool = flag(False, "Begin anew where OUT/RECIPE holds a run, which is then lost")


@dataclass(kw_only=True)
class LatentSettings(Settings):
    "Settings of the recipes with the latent loss alone"
    thesis: bool = thesis_setting(known=1., distance="l1")
    known: float = flag(.1, "Weight of latent pixels without a hole; those with one have 1")
    distance: str = flag("edges", "Of latents: l1, l2, huber, cosine, normalised, decoder, edges")


@dataclass(kw_only=True)
class DiffusionSettings(Settings):
    "Settings of the recipes that denoise; `blocks` and `refiner` mean nothing to them"
    control: str = flag("concat", "How the U-Net is told of the hole: concat, controlnet, mask, none")
    width_u: int = flag(64, "Channels of the U-Net's first stage; each further one has half as many more")
    layers: int = flag(1, "Residual blocks in each stage")
    delta: bool = flag(True, "Denoise the difference from the latent of the smooth fill; never with none")
    prediction: str = flag("v", "What the U-Net predicts: v (velocity), or epsilon (noise)")
    min_snr: float = flag(5., "Largest signal-to-noise ratio that weighs a timestep; 0: all alike")
    known: float = flag(.1, "Weight of known latents, or pixels; those of a hole have 1")
    sampler: str = flag("dpm++", "How holes are filled: ddim, ddpm, dpm++, lcm")
    sampling: int = flag(20, "Steps of sampling")
    lr: float = flag(1e-3, "Learning rate, the highest of a schedule")
    clip: float = flag(1., "Largest norm of the gradients; 0: any")
    ema: float = flag(.999, "Decay of the weights' moving average, judged and saved instead; 0: none")


@dataclass(kw_only=True)
class AdversarialSettings(Settings):
    "Settings of the recipes that train with all of LaMa's losses"
    thesis: bool = thesis_setting(perceptual="ade20k", width_d=64)
    perceptual: str = flag("auto", "Perceptual network: auto, ade20k or a file of it, imagenet, vgg, none")
    r1_every: int = flag(1, "Steps between two R1 penalties")
    lr_d: float = flag(1e-4, "Learning rate of the discriminator")
    width_d: int = flag(0, "Channels of the discriminator's first stage; 0: as the model's")
    grad_shares: int = flag(0, "Steps between two measurements of each loss's share of the gradient; 0: none")
    lr: float = flag(1e-3, "Learning rate, the highest of a schedule")
    clip: float = flag(1., "Largest norm of each network's gradients; 0: any")
