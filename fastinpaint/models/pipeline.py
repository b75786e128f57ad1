"Stable Diffusion inpainting, by diffusers' parts, as a network like any other"
import inspect
import json
from copy import deepcopy
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..core.download import hub_folder
from ..core.errors import InputError, MissingFile, MissingPackage
from .denoiser import of_diffusers

INDEX, CLASS = "model_index.json", "StableDiffusionInpaintPipeline"
PARTS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
WEIGHTS, TEXT_WEIGHTS = "diffusion_pytorch_model.safetensors", "model.safetensors"
FILES = ["*.json", "*/*.json", "*/*.safetensors", "*/merges.txt"]
CONTEXT = 1.  # around a hole on every side, times the hole's


class PipelineNet(nn.Module):
    """A network that generates by `unet`, `vae` and `scheduler` of a Stable Diffusion inpainting pipeline.

    It sees each hole, with as much around it on every side as it is large, at `size` pixels, the side that
    the U-Net was trained for. `embeds` `[2 or 1, n, d]` are those of the negative prompt, with `guidance`
    beyond 1, and of the prompt. A fill depends on the seed alone, as in diffusers, not on the batch."""
    generates = True
    def __init__(self, unet, vae, scheduler, embeds, guidance, steps, seed):
        super().__init__()
        self.unet, self.vae, self.scheduler = unet, vae, scheduler
        self.guidance, self.steps, self.seed = guidance, steps, seed
        self.scale = 2**(len(vae.config.block_out_channels) - 1)
        self.size = unet.config.sample_size*self.scale
        self.register_buffer("embeds", embeds)
        self.config = dict(model="diffusers", guidance=guidance, steps=steps, size=self.size)

    def folded(self, winograd=None): return self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, masked, mask, seed=None):
        "Prediction `[B, 3, H, W]` of `masked` `[B, 3, H, W]`, 0 in the hole of `mask` `[B, 1, H, W]`"
        pred, seed = masked.clone(), self.seed if seed is None else seed
        for i, hole in enumerate(mask > .5):
            if not hole.any(): continue
            part = (slice(i, i + 1), slice(None), *context_box(hole[0]))
            pred[part] = self.part(masked[part], mask[part], seed)
        return pred

    def part(self, masked, mask, seed):
        "The prediction for a part of one image, which the pipeline sees at its own size"
        size, shape = (self.size, self.size), masked.shape[-2:]
        if shape == size: return self.filled(masked, mask, seed)
        known = resized(1 - mask, size)
        image = resized(masked, size)/known.clamp_min(1e-3)  # means of known pixels alone
        return resized(self.filled(image, (known < .5).to(mask), seed), shape)

    def filled(self, image, mask, seed):
        "What the pipeline makes of `[1, 3, size, size]`, with the random numbers that diffusers' would draw"
        generator, device = torch.Generator().manual_seed(seed), image.device
        scheduler, pairs = deepcopy(self.scheduler), len(self.embeds)
        shape = 1, self.vae.config.latent_channels, *(n//self.scale for n in image.shape[-2:])
        scheduler.set_timesteps(self.steps, device=device)
        x = torch.randn(shape, generator=generator).to(device)*scheduler.init_noise_sigma
        known = self.vae.encode((2*image - 1)*(mask < .5)).latent_dist.sample(generator)
        more = torch.cat([F.interpolate(mask, shape[-2:]), known*self.vae.config.scaling_factor], 1)
        takes = inspect.signature(scheduler.step).parameters
        random = dict(generator=generator) if "generator" in takes else {}
        for t in scheduler.timesteps:
            noisy = torch.cat([scheduler.scale_model_input(x, t), more], 1).expand(pairs, -1, -1, -1)
            pred, *prompted = self.unet(noisy, t, self.embeds, return_dict=False)[0].split(1)
            for found in prompted: pred = pred + self.guidance*(found - pred)
            x = scheduler.step(pred, t, x, **random, return_dict=False)[0]
        image = self.vae.decode(x/self.vae.config.scaling_factor, return_dict=False)[0]
        return (image*.5 + .5).clamp(0, 1)


def resized(x, size): return F.interpolate(x, size, mode="bilinear", antialias=True)


def context_box(hole):
    "Rows and columns around the `hole` `[H, W]` with `CONTEXT`, as square as the image lets them be"
    spans = [hole.any(dim).nonzero().flatten()[[0, -1]].tolist() for dim in (1, 0)]
    longest, box = max(b - a + 1 for a, b in spans), []
    side = max(longest, min(round(longest*(1 + 2*CONTEXT)), *hole.shape))
    for (a, b), n in zip(spans, hole.shape, strict=True):
        start = min(max((a + b + 1 - side)//2, 0), max(n - side, 0))
        box.append(slice(start, min(start + side, n)))
    return box


def from_diffusers(source, prompt=None, negative_prompt="", prompt_embeds=None, negative_prompt_embeds=None,
                   steps=50, guidance=7.5, seed=0):
    """A `PipelineNet` of a Stable Diffusion inpainting pipeline, for `Inpainter` and `evaluate`.

    `source`: a folder that diffusers saved it to, "org/name" on the Hugging Face Hub, or the pipeline. Of a
    folder only safetensors are read. `prompt` and `negative_prompt` need its text encoder, and transformers;
    `prompt_embeds` `[1, n, d]` and, with `guidance` beyond 1, `negative_prompt_embeds` do not. `steps` are
    those of its scheduler. Raises MissingFile, MissingPackage, Unreachable, and InputError for another
    pipeline, pickled weights, and arguments that do not fit."""
    if steps < 1: raise InputError(f"no filling in {steps} steps: expected 1 or more")
    if isinstance(source, str | Path): unet, vae, scheduler, encode = _of_folder(source)
    else:
        unet, vae, scheduler = source.unet, source.vae, source.scheduler
        encode = _encoder(getattr(source, "tokenizer", None), getattr(source, "text_encoder", None))
    channels = 2*vae.config.latent_channels + 1
    if unet.config.in_channels != channels:
        raise InputError(f"the U-Net has {unet.config.in_channels} input channels: expected {channels}, as "
                         "in a pipeline made for inpainting")
    guided = guidance > 1
    if prompt_embeds is None: embeds = encode(*[negative_prompt]*guided, prompt or "")
    elif guided and negative_prompt_embeds is None:
        raise InputError(f"{guidance=} needs negative_prompt_embeds beside prompt_embeds; 1 does not")
    else: embeds = [*[negative_prompt_embeds]*guided, prompt_embeds]
    width = unet.config.cross_attention_dim
    if wrong := [list(o.shape) for o in embeds if o.ndim != 3 or o.shape[-1] != width or len(o) != 1]:
        raise InputError(f"prompt embeddings {wrong[0]}: this U-Net takes [1, n, {width}]")
    return PipelineNet(unet, vae, scheduler, torch.cat(embeds), guidance, steps, seed).folded()


def _of_folder(name):
    "U-Net, VAE, scheduler, and what encodes a prompt, of a pipeline's folder, or repository"
    folder = Path(name) if Path(name).is_dir() else hub_folder(str(name), FILES)
    if not (folder/INDEX).is_file():
        raise MissingFile(f"{name} is no folder of a pipeline: it has no {INDEX}")
    try: index = json.loads((folder/INDEX).read_text())
    except ValueError as e: raise InputError(f"{folder/INDEX} cannot be read: {e}") from e
    if index.get("_class_name") != CLASS:
        raise InputError(f"{name} holds a {index.get('_class_name')}: expected a {CLASS}")
    for part in PARTS:
        if not (folder/part/WEIGHTS).is_file():
            raise InputError(f"{name} has no {part}/{WEIGHTS}: only safetensors are read, as other files may "
                             "run code; diffusers' save_pretrained writes them")
    loaded = [of_diffusers(cls).from_pretrained(folder/part, use_safetensors=True, local_files_only=True)
              for part, cls in PARTS.items()]
    scheduler = of_diffusers(index["scheduler"][1]).from_pretrained(folder/"scheduler")
    return *loaded, scheduler, partial(_encoded, folder, name)


def _encoded(folder, name, *prompts):
    "The embeddings of `prompts` by the text encoder in the pipeline's `folder`"
    if not (folder/"text_encoder").is_dir(): return _encoder(None, None)(*prompts)
    for part in f"text_encoder/{TEXT_WEIGHTS}", "tokenizer":
        if not (folder/part).exists():
            raise InputError(f"{name} has no {part} for a prompt: give prompt_embeds instead; of weights "
                             "only safetensors are read")
    try: transformers = import_module("transformers")
    except ImportError as e:
        raise MissingPackage(f"the prompt of {name} needs transformers: pip install "
                             '"fastinpaint[diffusers]", or give prompt_embeds') from e
    here = dict(local_files_only=True)
    model = transformers.CLIPTextModel.from_pretrained(folder/"text_encoder", use_safetensors=True, **here)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder/"tokenizer", **here)
    return _encoder(tokenizer, model.eval())(*prompts)


def _encoder(tokenizer, model):
    "A function from prompts to their embeddings `[1, n, d]`, which raises InputError without a text encoder"
    @torch.no_grad()
    def encode(*prompts):
        if model is None:
            raise InputError("this pipeline has no text encoder for a prompt: give prompt_embeds instead")
        exactly = dict(padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
        tokens = [tokenizer(prompt, **exactly, return_tensors="pt").input_ids for prompt in prompts]
        return [model(ids.to(model.device))[0] for ids in tokens]
    return encode
