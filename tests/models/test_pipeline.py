"A Stable Diffusion inpainting pipeline as a network"
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastinpaint.core import download
from fastinpaint.core.errors import InputError, MissingFile, MissingPackage, Unreachable
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.models.pipeline import PipelineNet, context_box, from_diffusers

diffusers = pytest.importorskip("diffusers")
UNET = dict(sample_size=4, in_channels=9, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
            norm_num_groups=4, cross_attention_dim=8, attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))
VAE = dict(block_out_channels=(4,)*4, down_block_types=["DownEncoderBlock2D"]*4, norm_num_groups=2,
           up_block_types=["UpDecoderBlock2D"]*4, latent_channels=4)
TEXT = dict(vocab_size=32, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=12)
SCHEDULERS = {"DDIMScheduler": {}, "PNDMScheduler": dict(skip_prk_steps=True),
              "EulerAncestralDiscreteScheduler": {}}


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    return SimpleNamespace(unet=diffusers.UNet2DConditionModel(**UNET), vae=diffusers.AutoencoderKL(**VAE),
                           scheduler=diffusers.DDIMScheduler())


@pytest.fixture
def embeds():
    torch.manual_seed(1)
    return dict(zip(["prompt_embeds", "negative_prompt_embeds"], torch.randn(2, 1, 5, 8), strict=True))


@pytest.fixture
def folder(parts, tmp_path):
    "A pipeline's folder, as diffusers writes it"
    for name in "unet", "vae", "scheduler": getattr(parts, name).save_pretrained(tmp_path/name)
    index = dict(_class_name="StableDiffusionInpaintPipeline", scheduler=["diffusers", "DDIMScheduler"],
                 text_encoder=[None, None])
    (tmp_path/"model_index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.fixture
def text(folder):
    "A text encoder and its tokenizer, in the pipeline's folder as published ones have them"
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(2)
    vocab = ["<|startoftext|>", "<|endoftext|>", "la", *"abelnw", *(f"{letter}</w>" for letter in "abelnw")]
    model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT, bos_token_id=0, eos_token_id=1))
    model.save_pretrained(folder/"text_encoder")
    (folder/"tokenizer").mkdir()
    for name, content in {"vocab.json": json.dumps({o: i for i, o in enumerate(vocab)}),
                          "merges.txt": "#version: 0.2\nl a\n",
                          "tokenizer_config.json": json.dumps(dict(model_max_length=12))}.items():
        (folder/"tokenizer"/name).write_text(content)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder/"tokenizer")
    return dict(text_encoder=model.eval(), tokenizer=tokenizer)


def pipeline(parts, scheduler, text_encoder=None, tokenizer=None, **config):
    "diffusers' own"
    pytest.importorskip("transformers")  # without which diffusers has none
    absent = dict.fromkeys(["safety_checker", "feature_extractor"])
    return diffusers.StableDiffusionInpaintPipeline(
        unet=parts.unet, vae=parts.vae, text_encoder=text_encoder, tokenizer=tokenizer, **absent,
        scheduler=getattr(diffusers, scheduler)(steps_offset=1, **config), requires_safety_checker=False)


def theirs(pipe, image, mask, guidance, **prompt):
    pipe.set_progress_bar_config(disable=True)
    return pipe(**prompt, image=image, mask_image=mask, height=32, width=32, num_inference_steps=4,
                guidance_scale=guidance, generator=torch.Generator().manual_seed(3), output_type="pt").images


def batch():
    image, mask = torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    mask[..., 9:20, 12:25] = 1
    return image, mask


@pytest.mark.parametrize("guidance", [1., 7.5])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_image_is_that_of_diffusers_own_pipeline(parts, embeds, scheduler, guidance):
    "To the bit, at the same seed"
    pipe, (image, mask) = pipeline(parts, scheduler, **SCHEDULERS[scheduler]), batch()
    net = from_diffusers(pipe, **embeds, steps=4, guidance=guidance, seed=3)
    found = net.part(image*(1 - mask), mask, 3)
    assert torch.equal(found, theirs(pipe, image, mask, guidance, **embeds))


@pytest.mark.parametrize("guidance", [1., 7.5])
def test_a_prompt_is_encoded_as_diffusers_does(parts, text, folder, guidance):
    "The image is that of both, of a pipeline to the bit; weights of files lie elsewhere in memory"
    pipe, (image, mask) = pipeline(parts, "DDIMScheduler", **text), batch()
    expected = theirs(pipe, image, mask, guidance, prompt="a lawn", negative_prompt="a wall")
    pipe.scheduler.save_pretrained(folder/"scheduler")
    for source, error in (pipe, 0), (folder, 1e-5):
        def difference(*prompts, source=source):
            net = from_diffusers(source, *prompts, steps=4, guidance=guidance, seed=3)
            return (net.part(image*(1 - mask), mask, 3) - expected).abs().max()
        assert difference("a lawn", "a wall") <= error
        assert difference("a well", "a wall") > 1e-4
        assert (difference("a lawn", "a bell") > 1e-4) == (guidance > 1)


def test_a_photograph_is_filled_by_seeds_and_known_pixels_stay(folder, embeds):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    hole = np.zeros((50, 70), bool)
    hole[10:22, 30:44] = True
    inpainter = Inpainter(from_diffusers(folder, **embeds, steps=2))
    fills = [np.asarray(o) for o in inpainter.several(image, hole, n=2, seed=1)]
    for fill in fills: assert (fill[~hole] == image[~hole]).all() and (fill[hole] != image[hole]).any()
    assert (fills[0] != fills[1]).any()
    assert (np.asarray(inpainter(image, hole, seed=2)) == fills[1]).all()


@torch.no_grad()
def test_a_hole_is_seen_with_its_context_at_the_size_of_the_pipeline(parts, embeds, monkeypatch):
    seen = []
    def filled(self, image, mask, seed):
        seen.append((image, mask))
        return image + mask
    monkeypatch.setattr(PipelineNet, "filled", filled)
    image, mask = torch.full((2, 3, 80, 160), .5), torch.zeros(2, 1, 80, 160)
    mask[:1, :, 30:46, 40:56] = 1
    net = from_diffusers(parts, **embeds, steps=2)
    pred = net(image*(1 - mask), mask)
    (part, hole), = seen
    assert part.shape == (1, 3, 32, 32) and hole.mean() == pytest.approx(1/9, abs=.02)
    assert part[(hole == 0).expand_as(part)].sub(.5).abs().max() < .01  # the hole does not darken its edge
    assert torch.equal(pred[1], image[1]) and pred[0, :, 34:42, 44:52].min() > .9


def test_boxes_are_square_where_the_image_lets_them_be():
    def box(size, rows, columns):
        hole = torch.zeros(size, dtype=torch.bool)
        hole[rows, columns] = True
        return [(s.start, s.stop) for s in context_box(hole)]
    assert box((80, 160), slice(30, 46), slice(40, 56)) == [(14, 62), (24, 72)]
    assert box((80, 160), slice(0, 16), slice(150, 160)) == [(0, 48), (112, 160)]
    assert box((40, 160), slice(10, 30), slice(40, 50)) == [(0, 40), (25, 65)]
    assert box((40, 160), slice(10, 30), slice(40, 140)) == [(0, 40), (40, 140)]


def test_what_does_not_fit_is_told_in_a_line(folder, parts, embeds, tmp_path, monkeypatch):
    def refused(words, error=InputError, source=folder, **options):
        with pytest.raises(error, match=words) as e: from_diffusers(source, **embeds | options)
        assert "\n" not in str(e.value)
    refused("in 0 steps", steps=0)
    refused("input channels: expected 9", source=SimpleNamespace(
        unet=diffusers.UNet2DConditionModel(**UNET | dict(in_channels=4)), vae=parts.vae,
        scheduler=parts.scheduler))
    refused(r"embeddings \[1, 5, 7\]: this U-Net takes \[1, n, 8\]", prompt_embeds=torch.zeros(1, 5, 7))
    refused("needs negative_prompt_embeds", negative_prompt_embeds=None)
    with pytest.raises(InputError, match="no text encoder"): from_diffusers(folder, "a lawn")
    (folder/"text_encoder").mkdir()
    for part in "text_encoder/model.safetensors", "tokenizer":
        with pytest.raises(InputError, match=f"has no {part} for a prompt.*only safetensors"):
            from_diffusers(folder, "a lawn")
        (folder/part).touch()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingPackage, match=r'pip install "fastinpaint\[diffusers\]"'):
            from_diffusers(folder, "a lawn")
    refused("it has no model_index.json", MissingFile, source=folder/"unet")
    (folder/"vae/diffusion_pytorch_model.safetensors").rename(folder/"vae/diffusion_pytorch_model.bin")
    refused("no vae/diffusion_pytorch_model.safetensors: only safetensors")
    (folder/"model_index.json").write_text(json.dumps(dict(_class_name="FluxPipeline")))
    refused("holds a FluxPipeline: expected a StableDiffusionInpaintPipeline")
    (folder/"model_index.json").write_text("{")
    refused("cannot be read")


def test_without_network_it_says_so_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "unreachable", lambda _: "no network")
    with pytest.raises(Unreachable, match="nobody/nothing has not been downloaded before"):
        from_diffusers("nobody/nothing", "a lawn")
    with pytest.raises(MissingFile, match="no folder"): from_diffusers(tmp_path/"nowhere", "a lawn")
